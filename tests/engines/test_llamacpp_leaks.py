"""Cycles of loading, answering, cancelling and crashing leave nothing behind."""

import asyncio
import gc
import os
import signal
import threading
from contextlib import aclosing

import pytest

from autotuned.core.errors import EngineUnreachable
from tests.engines.processes import descendants, descriptors, until
from tests.engines.shapes import SHAPE
from tests.suites.engine_case import TALK, answer, ask

CYCLES = 20


async def settled():
    """What is open and running once nothing moves any more."""
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    return descriptors(), descendants(), {task.get_name() for task in asyncio.all_tasks()}


async def load_and_unload(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    await answer(model, ask("Hello!"))
    await model.unload()


async def load_and_cancel_the_answer(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
        await anext(events)
    await model.unload()


async def cancel_the_load(engine, pocket):
    begun = asyncio.Event()
    load = asyncio.create_task(engine.load(pocket, SHAPE, lambda _: begun.set()))
    await begun.wait()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load


async def load_and_crash(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
        await anext(events)
        os.kill(model.process_id, signal.SIGKILL)
        with pytest.raises(EngineUnreachable):
            async for _ in events:
                pass
    await model.wait_gone()


@pytest.mark.parametrize(
    "cycle", [load_and_unload, load_and_cancel_the_answer, cancel_the_load, load_and_crash]
)
async def test_nothing_is_left_after_many_cycles(engine, pocket, paths, cycle):
    await cycle(engine, pocket)
    threads = threading.active_count()
    before = await settled()
    for _ in range(CYCLES):
        await cycle(engine, pocket)
    after = await settled()
    assert after == before
    assert list(paths.runtime.iterdir()) == []
    # The thread that waits for a guard may need a moment to end.
    await until(lambda: threading.active_count() <= threads, "no thread is left")


async def test_many_answers_leave_no_descriptor(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    await answer(model, ask("Hello!"))
    before = await settled()
    for number in range(100):
        async with aclosing(model.generate(ask("Hello!"), TALK)) as events:
            async for _ in events:
                if number % 3 == 0:
                    break
        await model.count_tokens("hello")
    assert await settled() == before
