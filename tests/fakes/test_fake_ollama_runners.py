"""The double of Ollama loads, replaces and lets go of its runners when the original does."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.engines.processes import descendants, until
from tests.fakes.ollama.asking import ENDLESS, FRANCE, chat
from tests.fakes.ollama.model_store import POCKET, add_model
from tests.fakes.ollama.running import running_ollama


@pytest.fixture(scope="module")
async def ollama(tmp_path_factory):
    """One double for all tests that do not change how it runs."""
    before = descendants()
    folder = tmp_path_factory.mktemp("ollama")
    add_model(folder / "models", "pocket:latest")
    add_model(folder / "models", "pocket:long", parameters={"num_ctx": 6144, "stop": ["Paris"]})
    async with running_ollama(folder, models=folder / "models") as running:
        yield running
    await until(lambda: descendants() <= before, "the double and its runners are gone")


async def post(ollama, path, **body):
    return await ollama.client.post(path, json=body)


async def growth(ollama, counter, *requests):
    """By how much each request raised a counter."""
    grown = []
    for request in requests:
        before = (await ollama.page())[counter]
        assert (
            await chat(
                ollama, options={"num_predict": 1} | request.get("options", {}), **_but_options(request)
            )
        ).is_success
        grown.append((await ollama.page())[counter] - before)
    return grown


def _but_options(request):
    return {name: value for name, value in request.items() if name != "options"}


async def test_a_context_that_is_only_sometimes_said_reloads_each_time(ollama):
    await chat(ollama, [])
    said, unsaid = {"options": {"num_ctx": 2048}}, {}
    assert await growth(ollama, "reloads", said, unsaid, said, unsaid) == [1, 1, 1, 1]
    same = {"options": {"num_ctx": 4096}}
    assert await growth(ollama, "reloads", same, unsaid, same) == [0, 0, 0]


async def test_what_else_reloads(ollama):
    await chat(ollama, [])
    same = [{"options": {"num_gpu": -1}}, {"options": {"use_mmap": False}}, {"options": {"num_batch": 512}}]
    assert await growth(ollama, "reloads", *same) == [0, 0, 0]
    other = [
        {"options": {"num_batch": 256}},
        {"options": {"num_thread": 1}},
        {"shift": False},
        {"model": "pocket:long"},
    ]
    assert await growth(ollama, "reloads", *other, {}) == [1] * 5


async def test_contexts_have_bounds(ollama):
    await chat(ollama, [], options={"num_ctx": 100_000})
    (running,) = (await ollama.client.get("/api/ps")).json()["models"]
    assert running["context_length"] == 8192
    assert (await ollama.page())["runners"][0]["shape"]["num_batch"] == 1024
    await chat(ollama, [], options={"num_ctx": 1})
    (running,) = (await ollama.client.get("/api/ps")).json()["models"]
    assert running["context_length"] == 4


async def test_a_reload_loses_the_cache_and_costs_time(ollama):
    await chat(ollama)
    loaded = (await chat(ollama)).json()
    assert loaded["prompt_eval_cached_count"] > 0
    reloaded = (await chat(ollama, options={"num_ctx": 3072})).json()
    assert reloaded["prompt_eval_cached_count"] == 0
    assert reloaded["load_duration"] > 50e6 > loaded["load_duration"]


async def test_loading_and_unloading(ollama):
    await _unload(ollama)
    empty = {"role": "assistant", "content": ""}
    answer = (await post(ollama, "/api/chat", model="pocket", keep_alive="1h")).json()
    assert (answer["message"], answer["done"], answer["done_reason"]) == (empty, True, "load")
    (running,) = (await ollama.client.get("/api/ps")).json()["models"]
    assert set(running) == {
        *("name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length")
    }
    assert running["size"] > POCKET.stat().st_size
    assert running["expires_at"].endswith("Z")
    first = running["expires_at"]
    await chat(ollama, options={"num_predict": 1})
    (running,) = (await ollama.client.get("/api/ps")).json()["models"]
    assert running["expires_at"] > first  # what was not said stays an hour
    await post(ollama, "/api/generate", model="pocket", keep_alive=-1)
    (running,) = (await ollama.client.get("/api/ps")).json()["models"]
    assert running["expires_at"] > "2200"
    await _unload(ollama)


async def _unload(ollama):
    answer = (await post(ollama, "/api/generate", model="pocket", keep_alive=0)).json()
    assert (answer["response"], answer["done_reason"]) == ("", "unload")
    await until(lambda: _nothing_runs(ollama), "the runner left")


async def _nothing_runs(ollama):
    return (await ollama.client.get("/api/ps")).json()["models"] == []


async def test_a_runner_leaves_when_its_time_is_over(ollama):
    await chat(ollama, options={"num_predict": 1}, keep_alive=0.05)
    await until(lambda: _nothing_runs(ollama), "the runner left")


async def test_a_request_can_be_its_runner_s_last(ollama):
    answer = (await chat(ollama, keep_alive="0")).json()
    assert answer["done_reason"] == "stop"
    await until(lambda: _nothing_runs(ollama), "the runner left")


async def test_one_request_at_a_time(ollama):
    await chat(ollama)
    order = []

    async def ask(number):
        await chat(ollama, [{"role": "user", "content": f"Count to {number}."}], options={"num_predict": 40})
        order.append(number)

    asking = []
    for number in (1, 2, 3):
        asking.append(asyncio.create_task(ask(number)))
        await until(lambda: _active(ollama, len(asking) - len(order)), "the request arrived")
    await asyncio.gather(*asking)
    assert order == [1, 2, 3]


async def _active(ollama, count):
    return (await ollama.page())["active_requests"] >= count


async def test_leaving_cancels(ollama):
    await chat(ollama)
    before = (await ollama.page())["cancelled"]
    body = {"model": "pocket", "messages": FRANCE, "format": ENDLESS}
    async with ollama.client.stream("POST", "/api/chat", json=body) as answer:
        await anext(answer.aiter_lines())
    await until(lambda: _cancelled(ollama, before + 1), "the request was cancelled")
    started = time.monotonic()
    assert (await chat(ollama, options={"num_predict": 1})).is_success
    assert time.monotonic() - started < 1


async def _cancelled(ollama, count):
    page = await ollama.page()
    return page["cancelled"] == count and page["active_requests"] == 0
