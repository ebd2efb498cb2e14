"""MLX workers that several tests use one after the other: starting one takes seconds.

A model that is lent is as good as new: what its conversations left is pushed out before. What a test wants
to end for good, or to keep states in memory with, it loads from the engine itself.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

from autotuned.core.chat import RawPrompt
from autotuned.core.errors import EngineUnreachable
from tests.engines.processes import until
from tests.suites.engine_case import ask


class Lent:
    """A loaded model until it is unloaded, which gives it back."""

    def __init__(self, pool, key, model):
        self._pool, self._key, self._real = pool, key, model
        self._is_lent = True

    def __getattr__(self, name):
        return getattr(self._real, name)

    def generate(self, request, conversation):
        assert self._is_lent, "it was given back"
        return self._real.generate(request, conversation)

    async def unload(self):
        if self._is_lent:
            self._is_lent = False
            self._pool.free.setdefault(self._key, []).append(self._real)


class PooledEngine:
    """An engine whose loaded models are used again."""

    def __init__(self, engine):
        self._engine = engine
        self.free = {}

    def __getattr__(self, name):
        return getattr(self._engine, name)

    async def load(self, entry, shape, on_progress):
        if shape.host_prompt_cache_bytes:
            return await self._engine.load(entry, shape, on_progress)
        key = (entry.facts.digest, shape)
        while models := self.free.get(key):
            model = models.pop()
            try:
                await forget(model)
            except EngineUnreachable:
                continue
            return Lent(self, key, model)
        return Lent(self, key, await self._engine.load(entry, shape, on_progress))


async def forget(model):
    """Has a prompt that begins like no other push out what a model holds."""
    request = replace(ask("x", max_reply_tokens=1), input=RawPrompt("~"))
    async with aclosing(model.generate(request, "nobody")) as events:
        async for _ in events:
            pass
    await until(lambda: is_idle(model), "the worker has ended the request")


async def is_idle(model):
    return not (await model.status()).active_requests_count
