"""A server that hangs where it describes models, dies again and again, or keeps what is to leave."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest

from autotuned.core.engine import EngineState
from autotuned.core.errors import EngineUnreachable
from autotuned.core.settings import OllamaSettings
from autotuned.engines.ollama import loading
from autotuned.engines.ollama.engine import OllamaEngine
from tests.engines.ollama_servers import connected
from tests.engines.processes import until
from tests.engines.scripted_server import plain
from tests.fakes.llama_server import script
from tests.fakes.serving import free_port

VERSION = {"/api/version": {"version": "0.33.3"}}
SHOWN = {"modelfile": "", "capabilities": ["completion"], "model_info": {}}


@asynccontextmanager
async def answering(pages):
    """A server with these pages; it hangs where a page is None."""

    async def serve(reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            page = pages.get(head.split()[1].decode(), {})
            page = page(json.loads(body)) if callable(page) else page
            if page is None:
                await reader.read()
                return
            writer.write(plain(200, page if isinstance(page, bytes) else json.dumps(page).encode()))
            await writer.drain()
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def tags(*names):
    return {"models": [{"name": name, "digest": name, "size": 1} for name in names]}


async def test_a_server_that_describes_nothing_delays_nobody(clock):
    def show(body):
        return SHOWN if body["model"] == "m0" else None

    pages = VERSION | {"/api/tags": tags(*(f"m{n}" for n in range(40))), "/api/show": show}
    async with answering(pages) as url:
        engine = OllamaEngine(settings=OllamaSettings(mode="attach", url=url), clock=clock, environment={})
        began = time.monotonic()
        assert [entry.id for entry in await engine.models()] == ["m0"]
        assert time.monotonic() - began < 4
        assert [entry.id for entry in await engine.models()] == ["m0"]
        await engine.refresh()
        assert time.monotonic() - began < 7
        await engine.close()


async def test_one_that_cannot_be_read_hides_no_other(clock):
    pages = VERSION | {
        "/api/tags": b'{"models": [{"name": null}, {"name": "\xff"}, {"name": "m0"}]}',
        "/api/show": b"\xff",
        "/api/ps": b'{"models": [{"name": "m0", "context_length": -1, "expires_at": "never"}]}',
    }
    async with answering(pages) as url, connected(url, clock) as engine:
        (entry,) = await engine.models()
        assert entry.id == "m0"
        assert "cannot describe" in entry.problem
        assert engine.status().state is EngineState.READY


async def test_a_server_that_has_died_a_thousand_times_is_started_again(tmp_path, monkeypatch, clock):
    script(tmp_path / "ollama", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    settings = OllamaSettings(mode="auto", url=f"http://127.0.0.1:{free_port()}")
    engine = OllamaEngine(settings=settings, clock=clock)
    engine._server._deaths_count = 1100
    await engine.refresh()
    await until(lambda: engine.status().state is EngineState.UNREACHABLE, "it has died")
    assert "exited with status 1" in engine.status().detail
    await engine.close()


async def test_what_others_keep_is_not_said_to_be_unloaded(clock, monkeypatch):
    monkeypatch.setattr(loading, "UNLOAD_SECONDS", 0.1)
    pages = VERSION | {
        "/api/tags": tags("m0"),
        "/api/show": SHOWN,
        "/api/ps": {"models": [{"name": "m0", "context_length": 10}]},
        "/api/chat": {"done_reason": "unload"},
    }
    async with answering(pages) as url, connected(url, clock) as engine:
        with pytest.raises(EngineUnreachable, match=r"m0.* others use it"):
            await engine.unload_resident("m0")
        pages["/api/chat"] = None
        with pytest.raises(EngineUnreachable, match="m0"):
            await engine.unload_resident("m0")
