"""Engines that are connected to an Ollama server for the time of a test."""

from __future__ import annotations

from contextlib import asynccontextmanager

from autotuned.core.settings import OllamaSettings
from autotuned.engines.ollama.engine import OllamaEngine


@asynccontextmanager
async def connected(url, clock, *, insecure_hosts=(), **settings):
    """An engine that is attached to the server at this URL, and closed afterwards."""
    wanted = OllamaSettings(**{"mode": "attach", "url": url, **settings})
    engine = OllamaEngine(settings=wanted, clock=clock, environment={}, insecure_hosts=insecure_hosts)
    try:
        await engine.refresh()
        yield engine
    finally:
        await engine.close()


async def entry_of(engine, model_id="pocket:latest"):
    """The entry of a model."""
    return next(entry for entry in await engine.models() if entry.id == model_id)
