"""The daemon in this process: after a cancel in any phase no task, turn, lease or engine slot is held."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import autotune
import pytest
from autotune.v1 import chat_pb2
from autotune.v1 import inference_service_pb2 as pb

from autotuned.core.settings import LlamacppSettings, PathSettings, Settings
from autotuned.daemon import run
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import fetch
from tests import alone

PATIENCE_SECONDS = 20.0


@asynccontextmanager
async def daemon_here(slots=1):
    """A whole daemon on this event loop, and a client of it."""
    home = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    settings = Settings(
        paths=PathSettings(data=home / "data", runtime=home / "run", state=home / "state"),
        llamacpp=LlamacppSettings(server="embedded", slots=slots, batch_tokens=64),
        **alone.SETTINGS,
    )
    stop, serving = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(run(settings, stop=stop, on_serving=serving.set))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await serving.wait()
        async with autotune.AsyncClient(f"unix:{home / 'run' / 'autotuned.sock'}") as client:
            yield client, home / "run"
    finally:
        stop.set()
        await task
        shutil.rmtree(home)


def ask(text, **fields):
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=text)])
    return pb.GenerateRequest(
        chat=chat_pb2.ChatInput(messages=[message]), sampling=pb.Sampling(temperature=0), **fields
    )


def endless():
    """A request whose answer is cut off by the context alone: nothing that waits for it is too late."""
    request = ask("Tell me a story.", context_tokens=8192)
    request.sampling.logit_bias.update(dict.fromkeys(range(8), -100.0))
    return request


async def leave_at(client, request, kind):
    """Gives a request up as soon as an event of this kind came."""
    async with aclosing(client.generate(request)) as events:
        async for event in events:
            if event.WhichOneof("event") == kind:
                return
    pytest.fail(f"the stream ended without {kind}")


async def until(condition, what):
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - the daemon is asked; it does not tell
            await asyncio.sleep(0.01)
    assert await condition(), what


async def is_idle(client, runtime):
    snapshot = await client.snapshot()
    if snapshot.active_requests_count or snapshot.queued_requests_count:
        return False
    if any(model.active_requests_count for model in snapshot.running_models):
        return False
    for socket in runtime.glob("w-*.sock"):
        _, body = await fetch(Endpoint.unix(socket), "GET", "/slots", silence_seconds=PATIENCE_SECONDS)
        if any(slot["is_processing"] for slot in json.loads(body)):
            return False
    return True


def task_names():
    return sorted(
        task.get_name().split(" ")[0] for task in asyncio.all_tasks() if "Task-" not in task.get_name()
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [("Tell me a story.", "delta"), ("word " * 700, "started")],
    ids=["decode", "prefill"],
)
async def test_a_request_that_runs(text, kind):
    async with daemon_here() as (client, runtime):
        await client.chat("Hello", temperature=0)
        await until(lambda: is_idle(client, runtime), "idle at first")
        before = await tasks_at_rest()
        for number in range(3):
            await leave_at(client, ask(f"{text} {number}"), kind)
        await until(lambda: is_idle(client, runtime), "idle again")
        await until(lambda: same_tasks(before), f"the tasks of before: {before}")


async def test_a_request_that_waits():
    async with daemon_here() as (client, runtime):
        await client.chat("Hello", temperature=0)
        await until(lambda: is_idle(client, runtime), "idle at first")
        before = await tasks_at_rest()
        async with aclosing(client.generate(endless())) as holder:
            while (await anext(holder)).WhichOneof("event") != "delta":
                pass
            await asyncio.gather(*(leave_at(client, ask("Hello"), "queued") for _ in range(4)))
            assert (await client.snapshot()).queued_requests_count <= 4
        await until(lambda: is_idle(client, runtime), "idle again")
        await until(lambda: same_tasks(before), f"the tasks of before: {before}")


async def test_a_request_that_loads_leaves_the_model_loaded_and_nothing_else():
    async with daemon_here() as (client, runtime):
        await leave_at(client, ask("Hello"), "queued")

        async def is_loaded():
            return [model.state for model in (await client.snapshot()).running_models] == [3]

        await until(is_loaded, "the load went on")
        await until(lambda: is_idle(client, runtime), "idle")


async def test_two_slots_run_two_requests_and_both_can_leave():
    async with daemon_here(slots=2) as (client, runtime):
        await client.chat("Hello", temperature=0)
        await asyncio.gather(
            *(leave_at(client, ask(f"Tell me a story. {number}"), "delta") for number in range(2))
        )
        await until(lambda: is_idle(client, runtime), "idle")


async def tasks_at_rest():
    """Their number and names when none of the daemon's jobs runs: the fewest of a few looks."""
    looks = []
    for _ in range(20):
        looks.append((len(asyncio.all_tasks()), task_names()))
        await asyncio.sleep(0.01)
    return min(looks, key=lambda look: look[0])


async def same_tasks(before):
    return (len(asyncio.all_tasks()), task_names()) == before
