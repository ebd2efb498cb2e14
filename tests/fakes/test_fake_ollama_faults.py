"""The double of Ollama fails as it is told, takes its environment, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket

import httpx
import psutil
import pytest

from tests.engines.processes import descendants, is_alive, until
from tests.fakes.ollama.asking import ENDLESS
from tests.fakes.ollama.model_store import add_model, twin_of_pocket
from tests.fakes.ollama.running import install_ollama, running_ollama
from tests.fakes.ollama.settings import parse_duration, settings_from

FRANCE = {"model": "pocket", "messages": [{"role": "user", "content": "What is the capital of France?"}]}


@pytest.fixture(scope="module")
async def ollama(tmp_path_factory):
    before = descendants()
    async with running_ollama(tmp_path_factory.mktemp("ollama")) as running:
        yield running
    await until(lambda: descendants() <= before, "the double and its runners are gone")


@pytest.fixture(autouse=True)
async def nothing_planned(request):
    yield
    if "ollama" in request.fixturenames:
        await request.getfixturevalue("ollama").order("clear")


async def chat(ollama, **body):
    return await ollama.client.post("/api/chat", json=FRANCE | {"stream": False} | body)


async def lines(ollama, received, **body):
    async with ollama.client.stream("POST", "/api/chat", json=FRANCE | body) as answer:
        async for line in answer.aiter_lines():
            received.append(json.loads(line))
    return answer.status_code


async def test_an_error_inside_the_stream(ollama):
    await ollama.order("error", after=2, message="the model fell over")
    received = []
    assert await lines(ollama, received) == 200
    assert [line.get("done") for line in received[:2]] == [False, False]
    assert received[2:] == [{"error": "the model fell over"}]
    assert (await chat(ollama)).is_success


async def test_an_error_before_the_stream(ollama):
    await ollama.order("error", message="no", status=503, path="/api/chat", times=2)
    assert (await ollama.client.get("/api/ps")).is_success
    for _ in range(2):
        answer = await chat(ollama)
        assert (answer.status_code, answer.json()) == (503, {"error": "no"})
    assert (await chat(ollama)).is_success


@pytest.mark.parametrize("after", [None, 3])
async def test_a_closed_connection(ollama, after):
    await ollama.order("close", after=after)
    received = []
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await lines(ollama, received)
    assert len(received) == (after or 0)


@pytest.mark.parametrize("after", [None, 3])
async def test_a_hanging_server(ollama, after):
    await ollama.order("hang", after=after)
    received = []
    hanging = asyncio.create_task(lines(ollama, received))
    await until(lambda: len(received) == (after or 0), "the lines before it came")
    assert await asyncio.wait({hanging}, timeout=0.1) == (set(), {hanging})
    await ollama.order("clear")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await hanging
    await until(lambda: _idle(ollama), "the request ended")


async def _idle(ollama):
    return (await ollama.page())["active_requests"] == 0


async def test_a_hanging_request_can_be_left(ollama):
    await ollama.order("hang")
    with pytest.raises(httpx.ReadTimeout):
        await ollama.client.post("/api/chat", json=FRANCE, timeout=0.1)
    await until(lambda: _idle(ollama), "the request ended")


async def test_delays(ollama):
    await ollama.order("delay", header_seconds=0.1)
    assert (await ollama.client.get("/api/version")).elapsed.total_seconds() >= 0.1


async def test_a_killed_runner_is_an_error_line_and_then_a_new_runner(ollama):
    await chat(ollama)
    loads = (await ollama.page())["loads"]
    received = []
    answering = asyncio.create_task(lines(ollama, received, format=ENDLESS))
    await until(lambda: len(received) > 0, "the answer began")
    await ollama.order("die", what="runners")
    assert await answering == 200
    assert received[-1] == {"error": "an error was encountered while running the model: unexpected EOF"}
    assert (await chat(ollama)).is_success
    assert (await ollama.page())["loads"] == loads + 1


async def test_bodies_are_kept_as_they_came(ollama):
    await chat(ollama, options={"num_predict": 1, "nonsense": 2})
    assert (await ollama.page())["bodies"][-1] == {
        "path": "/api/chat",
        "body": FRANCE | {"stream": False, "options": {"num_predict": 1, "nonsense": 2}},
    }


async def test_a_killed_server_takes_its_runners_along(tmp_path):
    async with running_ollama(tmp_path) as running:
        await chat(running)
        (runner,) = psutil.Process(running.pid).children()
        await running.order("die")
        await running.process.wait()
        await until(lambda: not is_alive(runner.pid), "the runner is gone")


async def test_it_takes_its_environment(tmp_path):
    environment = {
        "OLLAMA_CONTEXT_LENGTH": "1024",
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "LLAMA_ARG_CACHE_RAM": "0",
    }
    async with running_ollama(tmp_path, environment=environment, version="0.33.2") as running:
        answer = (await chat(running)).json()
        assert answer["prompt_eval_count"] == 15
        assert "prompt_eval_cached_count" not in answer
        (model,) = (await running.client.get("/api/ps")).json()["models"]
        assert model["context_length"] == 1024
        assert model["expires_at"] > "2200"
        (runner,) = (await running.page())["runners"]
        assert runner["environment"] == {"LLAMA_ARG_CACHE_RAM": "0"}
        assert {name: runner["launch"][name] for name in ("parallel", "cache_type", "flash_attention")} == {
            "parallel": 2,
            "cache_type": "q8_0",
            "flash_attention": True,
        }
        received = [], []
        both = [asyncio.create_task(lines(running, each, format=ENDLESS)) for each in received]
        await until(lambda: all(received), "two answers at once")
        for each in both:
            each.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def test_a_full_queue_and_one_runner_at_most(tmp_path):
    add_model(tmp_path / "models")
    environment = {"OLLAMA_MAX_QUEUE": "1", "OLLAMA_MAX_LOADED_MODELS": "1"}
    async with running_ollama(
        tmp_path, models=tmp_path / "models", environment=environment, reload_seconds=0.3
    ) as running:
        await chat(running)
        shapes = (1024, 2048, 3072, 5120)
        waiting = [asyncio.create_task(chat(running, options={"num_ctx": shape})) for shape in shapes]
        answers = await asyncio.gather(*waiting)
        refused = [answer for answer in answers if answer.status_code == 503]
        assert 1 <= len(refused) < len(shapes)
        assert refused[0].json()["error"].startswith("server busy, please try again.")


async def test_the_model_with_the_shortest_time_makes_room(tmp_path):
    store = tmp_path / "models"
    add_model(store)
    add_model(store, "twin", gguf=twin_of_pocket(tmp_path / "twin.gguf"))
    add_model(store, "pocket:again")
    environment = {"OLLAMA_MAX_LOADED_MODELS": "2"}
    async with running_ollama(tmp_path, models=store, environment=environment) as running:
        for model, keep_alive in (("pocket", 60), ("twin", 30), ("pocket:again", None)):
            await running.client.post("/api/generate", json={"model": model, "keep_alive": keep_alive})
        assert await _loaded(running) == ["pocket:latest", "twin:latest"]
        add_model(store, "third", gguf=twin_of_pocket(tmp_path / "third.gguf", more_bytes=64))
        await running.client.post("/api/generate", json={"model": "third"})
        assert await _loaded(running) == ["third:latest", "pocket:latest"]
        assert (await running.page())["reloads"] == 0


async def _loaded(running):
    return [model["name"] for model in (await running.client.get("/api/ps")).json()["models"]]


async def test_it_stands_in_for_the_program(tmp_path):
    store = tmp_path / "models"
    add_model(store)
    program = install_ollama(tmp_path / "bin")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(store),
    }
    assert await _output("ollama", "--version", environment) == (
        "Warning: could not connect to a running Ollama instance\nWarning: client version is 0.33.3\n"
    )
    serving = await asyncio.create_subprocess_exec(
        *("ollama", "serve"), env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert f"Listening on 127.0.0.1:{port} " in (await serving.stderr.readline()).decode()
    try:
        assert await _output("ollama", "--version", environment) == "ollama version is 0.33.3\n"
        second = await asyncio.create_subprocess_exec(
            *("ollama", "serve"), env=environment, stderr=asyncio.subprocess.PIPE
        )
        _, error = await second.communicate()
        assert (second.returncode, error.decode()) == (
            1,
            f"Error: listen tcp 127.0.0.1:{port}: bind: address already in use\n",
        )
    finally:
        serving.send_signal(signal.SIGTERM)
        await serving.communicate()
    assert serving.returncode == 0


async def _output(program, argument, environment):
    process = await asyncio.create_subprocess_exec(
        program, argument, env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("-1m", -60), ("1.5s", 1.5), ("0", 0), ("300ms", 0.3)],
)
def test_durations_are_those_of_go(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1", "300", "5 m", "m", "1d"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=r"^time: "):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("", "127.0.0.1", 11434),
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("localhost", "localhost", 11434),
        ("http://10.0.0.1:99", "10.0.0.1", 99),
        ("http://box/path", "box", 80),
    ],
)
def test_hosts(text, host, port):
    settings = settings_from({"OLLAMA_HOST": text})
    assert (settings.host, settings.port) == (host, port)
