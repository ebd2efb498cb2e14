"""Where Ollama's server is, who starts it, and who ends it."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest

from autotuned.core.engine import EngineState, KnobScope
from autotuned.core.errors import EngineUnreachable, ModelLoadFailed, ShuttingDown
from autotuned.core.model import ModelEntry
from autotuned.core.settings import OllamaSettings
from autotuned.engines.endpoint import EndpointInvalid
from autotuned.engines.ollama.address import endpoint_of, is_loopback, listen_address
from autotuned.engines.ollama.engine import OllamaEngine
from autotuned.engines.output import Output
from autotuned.engines.process import start_worker
from tests.engines.ollama_servers import connected, entry_of
from tests.engines.processes import descendants, is_alive, until
from tests.engines.scripted_server import plain
from tests.engines.shapes import SHAPE
from tests.fakes.ollama.model_store import add_model
from tests.fakes.ollama.running import install_ollama, running_ollama
from tests.fakes.serving import free_port
from tests.suites.engine_case import answer, ask, text_of


@pytest.mark.parametrize(
    ("url", "variable", "expected"),
    [
        ("", None, "http://127.0.0.1:11434"),
        ("", "", "http://127.0.0.1:11434"),
        ("", "0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 - what a user sets
        ("", "0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("", ":8080", "http://127.0.0.1:8080"),
        ("", "http://0.0.0.0:8080/", "http://127.0.0.1:8080"),
        ("", "[::]:8080", "http://[::1]:8080"),
        ("", "::1", "http://[::1]:11434"),
        ("", "gpu.example", "http://gpu.example:11434"),
        ("", "https://gpu.example", "https://gpu.example"),
        ("", '"127.0.0.1:99"', "http://127.0.0.1:99"),
        ("", "ftp://nonsense", "http://127.0.0.1:11434"),
        ("", "127.0.0.1:no", "http://127.0.0.1:11434"),
        ("http://127.0.0.1:5/base/", "gpu.example", "http://127.0.0.1:5/base"),
        ("localhost", "", "http://localhost:11434"),
    ],
)
def test_the_address_is_one_that_can_be_connected_to(url, variable, expected):
    environment = {} if variable is None else {"OLLAMA_HOST": variable}
    assert endpoint_of(url, environment).url == expected


def test_a_configured_address_that_is_none_is_said():
    with pytest.raises(EndpointInvalid):
        endpoint_of("ftp://somewhere", {})


def test_what_is_here_is_known():
    local = [
        is_loopback(endpoint_of(url, {})) for url in ("127.0.0.1", "::1", "localhost", "10.0.0.1", "a.b")
    ]
    assert local == [True, True, True, False, False]
    assert listen_address(endpoint_of("::1", {})) == "[::1]:11434"


@asynccontextmanager
async def engine_of(clock, **settings):
    """An engine that is closed, with proof that nothing of its is left."""
    before = descendants()
    engine = OllamaEngine(settings=OllamaSettings(**settings), clock=clock)
    try:
        yield engine
    finally:
        await engine.close()
    await until(lambda: descendants() <= before, "every process of the engine is gone")


@pytest.fixture
def installed(tmp_path, monkeypatch, paths):
    """An ``ollama`` on PATH whose store has the pocket model; returns a free address for it."""
    program = install_ollama(tmp_path / "bin")
    add_model(tmp_path / "models")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    # What a server that is killed leaves behind goes with the folder.
    monkeypatch.setenv("TMPDIR", str(paths.runtime))
    return f"http://127.0.0.1:{free_port()}"


async def started(engine):
    async def is_settled():
        await engine.refresh()
        return engine.status().state is not EngineState.STARTING

    await until(is_settled, "the server has started and told what it has")
    return engine.status()


async def test_where_none_runs_one_is_started_and_ended(installed, clock):
    async with engine_of(clock, mode="auto", url=installed) as engine:
        await engine.refresh()
        assert engine.status().state is EngineState.STARTING
        assert await engine.models() == ()
        assert (await started(engine)).state is EngineState.READY
        assert engine.status().server_settings == ()
        assert engine.version == "0.33.3"
        model = await engine.load(await entry_of(engine), SHAPE, lambda _: None)
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"
        assert "slots_count" in model.shape.assumed
    assert model.is_gone


async def test_a_load_waits_for_a_server_that_starts(installed, clock):
    async with running_ollama_entry(installed, clock) as entry, engine_of(clock, url=installed) as engine:
        await engine.refresh()
        model = await engine.load(entry, SHAPE, lambda _: None)
        assert not model.is_gone


@asynccontextmanager
async def running_ollama_entry(url, clock):
    """The entry of a model as an earlier server told it."""
    async with engine_of(clock, url=url) as engine:
        await started(engine)
        entry = await entry_of(engine)
    yield entry


async def test_a_managed_server_has_what_was_set(installed, clock):
    wanted = {"kv_cache": "q8_0", "slots": 2, "prompt_cache_mib": 48}
    async with engine_of(clock, mode="managed", url=installed, **wanted) as engine:
        status = await started(engine)
        assert dict(status.server_settings) == {
            "flash attention": "on",
            "kv cache": "q8_0",
            "slots": "2",
            "prompt cache MiB": "48",
        }
        assert engine.capabilities().slots_count == 2
        assert engine.capabilities().server_cache_type.value == "q8_0"
        assert engine.capabilities().knobs.cache_type is KnobScope.SERVER
        model = await engine.load(await entry_of(engine), SHAPE, lambda _: None)
        shape = model.shape
        assert (shape.slots_count, shape.key_cache_type.value, shape.host_prompt_cache_bytes) == (
            2,
            "q8_0",
            48 << 20,
        )
        assert not {"slots_count", "key_cache_type", "host_prompt_cache_bytes"} & set(shape.assumed)
        async with connected(installed, clock) as other:
            page = await _page(other)
        launch = page["runners"][0]["launch"]
        assert (launch["parallel"], launch["cache_type"], launch["flash_attention"]) == (2, "q8_0", True)
        assert launch["num_ctx"] == SHAPE.context_tokens
        assert page["runners"][0]["environment"]["LLAMA_ARG_CACHE_RAM"] == "48"
        assert page["settings"]["keep_alive_seconds"] > 1e9
        expected = 2 * 2048 * 4 * 2 * (32 + 32) * 34 // 32
        assert model.footprint.kv_cache_bytes == expected


async def _page(engine):
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{engine.status().address}/_double")).json()


async def test_a_managed_server_does_not_take_a_foreign_ones_place(installed, tmp_path, clock):
    port = int(installed.rpartition(":")[2])
    async with running_ollama(tmp_path / "other", port=port) as foreign:
        async with engine_of(clock, mode="managed", url=installed) as engine:
            status = await started(engine)
            assert status.state is EngineState.UNREACHABLE
            assert [finding.code for finding in status.findings] == ["ollama-address-taken"]
            assert "ollama.mode" in status.findings[0].advice
            assert await engine.models() == ()
        assert is_alive(foreign.pid)


async def test_a_server_that_was_there_is_used_and_left_alone(installed, tmp_path, clock):
    port = int(installed.rpartition(":")[2])
    async with running_ollama(tmp_path / "other", port=port) as foreign:
        async with engine_of(clock, mode="auto", url=installed) as engine:
            assert (await started(engine)).state is EngineState.READY
            await engine.load(await entry_of(engine), SHAPE, lambda _: None)
            assert [each["model"] for each in (await foreign.page())["runners"]] == ["pocket:latest"]
        assert is_alive(foreign.pid)
        # What the daemon loaded would stay there for ever.
        assert (await foreign.page())["runners"] == []


@pytest.mark.parametrize(
    ("settings", "state", "words"),
    [
        ({"mode": "off"}, EngineState.OFF, "ollama.mode is off"),
        ({"mode": "attach"}, EngineState.UNREACHABLE, "nothing answers"),
        ({"mode": "auto"}, EngineState.UNREACHABLE, "nothing answers"),
        ({"mode": "managed"}, EngineState.NOT_INSTALLED, "on PATH"),
    ],
)
async def test_one_that_is_not_there_is_said_to_be(clock, settings, state, words, tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    engine = OllamaEngine(
        settings=OllamaSettings(url=url, **settings), clock=clock, environment={"PATH": str(tmp_path)}
    )
    await engine.refresh()
    assert engine.status().state is state
    assert words in engine.status().detail
    codes = [finding.code for finding in engine.status().findings]
    missing = ["ollama-unreachable"]
    expected = {"off": [], "attach": missing, "auto": missing, "managed": ["ollama-not-installed"]}
    assert codes == expected[settings["mode"]]
    assert await engine.models() == ()
    assert await engine.residents() == ()
    await engine.close()


async def test_a_server_that_dies_is_started_again_after_a_pause(installed, clock):
    async with engine_of(clock, url=installed) as engine:
        await started(engine)
        model = await engine.load(await entry_of(engine), SHAPE, lambda _: None)
        server = engine._server._process
        os.kill(server.process_id, 9)
        assert "killed by signal 9" in await model.wait_gone()
        with pytest.raises(EngineUnreachable, match="killed by signal 9") as refusal:
            await answer(model, ask("Hello!"))
        assert refusal.value.served is False
        await engine.refresh()
        assert engine.status().state is EngineState.UNREACHABLE
        assert "killed by signal 9" in engine.status().detail
        engine._server._start_at = 0.0  # the pause is over
        assert (await started(engine)).state is EngineState.READY
        fresh = await engine.load(await entry_of(engine), SHAPE, lambda _: None)
        assert text_of(await answer(fresh, ask("Hello!"))) == "Hello! How can I help you?"


async def test_the_pause_grows_with_each_death(clock, tmp_path, monkeypatch):
    program = tmp_path / "ollama"
    program.write_text('#!/bin/sh\necho "Error: no room" >&2\nexit 1\n')
    program.chmod(0o700)
    pauses = []
    engine = OllamaEngine(
        settings=OllamaSettings(url=f"http://127.0.0.1:{free_port()}"),
        clock=clock,
        environment={"PATH": str(tmp_path)},
    )
    for _ in range(3):
        engine._server._start_at = 0.0
        status = await started(engine)
        assert status.state is EngineState.UNREACHABLE
        assert "Error: no room" in status.detail
        pauses.append(round(engine._server._start_at - clock.monotonic()))
    await engine.close()
    assert pauses == [1, 2, 4]


async def test_a_server_that_cuts_prompts_is_not_used(tmp_path, clock):
    async with (
        running_ollama(tmp_path, version="0.12.5") as server,
        connected(server.url, clock) as engine,
    ):
        status = engine.status()
        assert status.state is EngineState.UNREACHABLE
        assert [finding.code for finding in status.findings] == ["ollama-too-old"]
        assert await engine.models() == ()


async def test_what_answers_must_be_ollama(clock):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(plain(200, b"<html>hello</html>"))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        async with connected(f"http://127.0.0.1:{port}", clock) as engine:
            assert "is not Ollama" in engine.status().detail
            assert engine.status().state is EngineState.UNREACHABLE


async def test_a_configured_address_that_is_none_is_a_finding(clock):
    engine = OllamaEngine(settings=OllamaSettings(url="ftp://x"), clock=clock, environment={})
    await engine.refresh()
    assert engine.status().state is EngineState.UNREACHABLE
    assert [finding.code for finding in engine.status().findings] == ["ollama-url-invalid"]
    await engine.close()


async def test_a_hanging_server_costs_two_seconds_once(tmp_path, clock):
    async with running_ollama(tmp_path) as server, connected(server.url, clock) as engine:
        entry = await entry_of(engine)
        await server.order("hang", path="/api/version", times=9)
        began = clock.monotonic()
        engine._refreshed_at = None
        assert await engine.models() == ()
        assert await engine.models() == ()
        assert clock.monotonic() - began < 3.0
        assert "does not answer" in engine.status().detail
        with pytest.raises(EngineUnreachable) as refusal:
            await engine.load(entry, SHAPE, lambda _: None)
        assert refusal.value.served is False
        await server.order("clear")


async def test_what_a_worker_started_ends_with_it(tmp_path):
    program = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    worker = await start_worker((sys.executable, "-c", program), tmp_path / "none", Output())
    await until(lambda: any(line.startswith("child") for line in worker.log.lines), "the child is there")
    child = psutil.Process(int(worker.log.lines[-1].split()[1]))
    os.kill(worker.process_id, 9)
    assert "killed by signal 9" in await worker.wait_gone()
    await until(lambda: not is_alive(child.pid), "the child is gone")


async def test_an_engine_that_is_closed_while_it_starts_leaves_nothing(installed, clock):
    async with engine_of(clock, url=installed) as engine:
        looking = asyncio.create_task(engine.refresh())
        async with asyncio.timeout(20):
            # Each turn of the loop: a refused connection takes less than some milliseconds.
            while not engine._server._looking.locked():  # noqa: ASYNC110 - a lock tells nobody that it is taken
                await asyncio.sleep(0)
        await engine.close()
        await asyncio.gather(looking, return_exceptions=True)
        await engine.refresh()
        with pytest.raises(ShuttingDown):
            await engine.load(broken_entry(), SHAPE, lambda _: None)


def broken_entry():
    return ModelEntry(id="x", engine="ollama", path="", size_bytes=0, facts=None, problem="It is broken.")


async def test_a_load_that_the_server_refuses_says_why(tmp_path, clock):
    async with running_ollama(tmp_path) as server, connected(server.url, clock) as engine:
        entry = await entry_of(engine)
        await server.order("error", path="/api/chat", message="llama-server process has terminated: no room")
        with pytest.raises(ModelLoadFailed, match="no room"):
            await engine.load(entry, SHAPE, lambda _: None)


async def test_without_a_trace_of_it_there_is_nothing_to_report(clock, tmp_path):
    environment = {"PATH": str(tmp_path), "OLLAMA_HOST": f"127.0.0.1:{free_port()}"}
    engine = OllamaEngine(settings=OllamaSettings(), clock=clock, environment=environment)
    await engine.refresh()
    status = engine.status()
    assert (status.state, status.findings) == (EngineState.NOT_INSTALLED, ())
    assert status.detail.endswith('and no "ollama" is on PATH')
    await engine.close()


async def test_one_that_was_there_and_is_gone_is_missed(clock, tmp_path):
    """Where its program is not on PATH, as with the app or a container."""
    port = free_port()
    environment = {"PATH": str(tmp_path), "OLLAMA_HOST": f"127.0.0.1:{port}"}
    engine = OllamaEngine(settings=OllamaSettings(), clock=clock, environment=environment)
    async with running_ollama(tmp_path / "there", port=port):
        await engine.refresh()
        assert engine.status().state is EngineState.READY
        assert "slots" not in dict(engine.status().server_settings)
        assert engine.capabilities().knobs.cache_type is KnobScope.NONE
    await engine.refresh()
    status = engine.status()
    assert (status.state, status.detail) == (
        EngineState.UNREACHABLE,
        f"nothing answers at http://127.0.0.1:{port} (connection refused)",
    )
    assert [finding.code for finding in status.findings] == ["ollama-unreachable"]
    await engine.close()
