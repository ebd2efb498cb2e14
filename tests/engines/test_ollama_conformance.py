"""The Ollama engine passes the suite that every engine passes: against the double, and against a real one.

The real one is the server of OLLAMA_HOST, or the ``ollama`` on PATH, which is then started on a free port
with an empty folder of models. The pocket model is made there, and removed afterwards.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from autotuned.core.engine import EngineState
from autotuned.core.errors import Unsupported
from autotuned.core.settings import OllamaSettings
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.llamacpp.discovery import POCKET
from autotuned.engines.ollama.address import endpoint_of
from autotuned.engines.ollama.engine import OllamaEngine
from tests.engines.ollama_servers import connected, entry_of
from tests.engines.processes import descendants, until
from tests.engines.shapes import SHAPE
from tests.fakes.ollama.running import running_ollama
from tests.fakes.serving import free_port
from tests.suites.engine_case import EngineCase, answer, ask
from tests.suites.engine_suite import EngineSuite

REAL_MODEL = "autotune-pocket-test:latest"
HAS_REAL = "OLLAMA_HOST" in os.environ or shutil.which("ollama") is not None
NO_REAL = 'there is no Ollama here: OLLAMA_HOST is not set, and no "ollama" is on PATH'


@pytest.fixture(scope="module")
async def double_server(tmp_path_factory):
    """One double for all tests: what one leaves there, the next would find."""
    async with running_ollama(tmp_path_factory.mktemp("ollama")) as server:
        yield server


@asynccontextmanager
async def double(server, clock):
    """The double, and what it says of requests that it works on."""

    async def active_requests(_model):
        return (await server.page())["active_requests"]

    async with connected(server.url, clock) as engine:
        yield engine, "pocket:latest", active_requests
    assert (await server.page())["runners"] == []


@asynccontextmanager
async def real(tmp_path, clock, monkeypatch):
    """A real server with the pocket model."""
    async with real_engine(tmp_path, clock, monkeypatch) as engine:
        url = engine.status().address
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await _create_pocket(client)
            try:
                # It does not tell what it works on; the next request waits for what is left.
                yield engine, REAL_MODEL, _nothing
            finally:
                await engine.close()
                await client.request("DELETE", "/api/delete", json={"model": REAL_MODEL})


@asynccontextmanager
async def real_engine(tmp_path, clock, monkeypatch):
    if "OLLAMA_HOST" in os.environ:
        url = endpoint_of("", os.environ).url
        engine = OllamaEngine(settings=OllamaSettings(mode="attach", url=url), clock=clock)
    else:
        monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
        url = Endpoint(host="127.0.0.1", port=free_port()).url
        engine = OllamaEngine(settings=OllamaSettings(mode="managed", url=url), clock=clock)
    try:
        await until(lambda: _has_started(engine), "Ollama has started", 60.0)
        if engine.status().state is not EngineState.READY:
            pytest.skip(f"Ollama is not ready: {engine.status().detail}")
        yield engine
    finally:
        await engine.close()


async def _has_started(engine):
    """Whether it serves, or never will; a server that has just started has told no models yet."""
    await engine.refresh()
    return engine.status().state is not EngineState.STARTING


async def _create_pocket(client):
    content = POCKET.read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    (await client.post(f"/api/blobs/{digest}", content=content)).raise_for_status()
    wanted = {"model": REAL_MODEL, "files": {"pocket.gguf": digest}, "stream": False}
    (await client.post("/api/create", json=wanted)).raise_for_status()


async def _nothing(_model):
    return 0


class OllamaSuite(EngineSuite):
    """What is refused where another engine can do it."""

    async def test_what_it_cannot_do_is_refused(self, case, model):
        able = case.engine.capabilities()
        for name in ("tool_choice", "continues_replies", "kv_prefixes", "exact_token_counts"):
            assert getattr(able, name) is False
        biased = replace(ask("Hello!").sampling, logit_bias=((300, 1.0),))
        with pytest.raises(Unsupported, match="logit bias"):
            await answer(model, ask("Hello!", sampling=biased))
        with pytest.raises(Unsupported, match="cut"):
            await answer(model, ask("Hello!", reply_so_far="Hello"))
        with pytest.raises(Unsupported, match="counts no tokens"):
            await model.count_tokens("hello")
        with pytest.raises(Unsupported, match="KV prefixes"):
            await model.save_prefix("talk", "file")
        with pytest.raises(Unsupported, match="KV prefixes"):
            await model.restore_prefix("talk", "file")
        assert not model.holds("talk")


class TestOllamaDouble(OllamaSuite):
    """Against the double."""

    @pytest.fixture
    async def case(self, double_server, clock):
        async with double(double_server, clock) as made:
            yield await _case(*made)


@pytest.mark.skipif(not HAS_REAL, reason=NO_REAL)
class TestOllamaReal(OllamaSuite):
    """Against a real Ollama."""

    @pytest.fixture
    async def case(self, tmp_path, clock, monkeypatch):
        before = descendants()
        async with real(tmp_path, clock, monkeypatch) as made:
            yield await _case(*made)
        await until(lambda: descendants() <= before, "every process of the server is gone")


async def _case(engine, model_id, active_requests):
    await engine.refresh()
    entry = await entry_of(engine, model_id)
    return EngineCase(engine=engine, entry=entry, shape=SHAPE, active_requests=active_requests)
