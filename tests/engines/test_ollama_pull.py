"""Ollama pulls and deletes as engines must: against the double, and against a real one where there is one."""

from __future__ import annotations

import hashlib
import os

import pytest

from tests.engines.ollama_servers import connected
from tests.engines.processes import descendants, until
from tests.engines.shapes import SHAPE
from tests.engines.test_ollama_conformance import HAS_REAL, NO_REAL, real_engine
from tests.fakes.ollama.model_store import add_model, twin_of_pocket
from tests.fakes.ollama.registry import Registry
from tests.fakes.ollama.running import running_ollama
from tests.suites.engine_pulls import EnginePulls, PullCase


@pytest.fixture
def registry(tmp_path):
    """A registry with two names of one model, which is not the one that tests have elsewhere."""
    gguf = twin_of_pocket(tmp_path / "pulled.gguf", more_bytes=64)
    for name in ("lab/autotune-pulled", "lab/autotune-again"):
        add_model(tmp_path / "registry", name, gguf=gguf)
    with Registry(tmp_path / "registry") as serving:
        yield serving


def case(engine, registry, tmp_path, folder):
    content = (tmp_path / "pulled.gguf").read_bytes()
    return PullCase(
        engine=engine,
        registry=registry,
        name=f"{registry.host}/lab/autotune-pulled",
        twin_name=f"{registry.host}/lab/autotune-again",
        file_bytes=len(content),
        file_digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        shape=SHAPE,
        folder=folder,
    )


class TestDouble(EnginePulls):
    """Against the double."""

    @pytest.fixture
    async def pulls(self, registry, tmp_path, clock):
        async with running_ollama(tmp_path) as server, connected(server.url, clock) as engine:
            yield case(engine, registry, tmp_path, server.models)


@pytest.mark.skipif(not HAS_REAL, reason=NO_REAL)
class TestReal(EnginePulls):
    """Against a real Ollama."""

    @pytest.fixture
    async def pulls(self, registry, tmp_path, clock, monkeypatch):
        before = descendants()
        async with real_engine(tmp_path, clock, monkeypatch) as engine:
            folder = None if "OLLAMA_HOST" in os.environ else tmp_path / "models"
            if folder is None and not engine.capabilities().is_local:
                pytest.skip(
                    "the real Ollama is on another machine, from where no registry here can be reached"
                )
            made = case(engine, registry, tmp_path, folder)
            yield made
            registry.release()
            for name in (made.name, made.twin_name):
                if entry := await made.entry(name):
                    await engine.delete(entry)
        await until(lambda: descendants() <= before, "every process of the server is gone")
