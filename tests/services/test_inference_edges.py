"""Generations that never ran: what is recorded, refused and shown of requests that wait, fail or come too late."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from autotuned.core.chat import ChatInput, GenerationRequest, ImagePart, Message, Role, TextPart
from autotuned.core.errors import ModelLoadFailed, QueueFull, ShuttingDown, Unsupported
from autotuned.core.memory import SwapPolicy
from autotuned.core.model import ModelState
from autotuned.core.settings import ModelSettings, PrefixSettings, QueueSettings
from autotuned.services.catalogue import Catalogue
from autotuned.services.inference import Inference
from autotuned.services.models import Models
from autotuned.services.prefixes import Prefixes
from autotuned.services.sessions import Sessions
from tests.examples import DEFAULTS
from tests.services.scripted import ENTRY, NoStore, World
from tests.services.test_model_actor_reports import SMALL, settle

HELLO = ChatInput((Message(Role.USER, (TextPart("Hello"),)),))
IMAGE = ChatInput((Message(Role.USER, (ImagePart(b"x", "image/png"),)),))
REQUEST = GenerationRequest(model=ENTRY.id, input=HELLO)


class Records(list):
    async def append(self, record):
        super().append(record)


class House:
    """The services around an engine whose every step waits for the test."""

    def __init__(self):
        self.world = World()
        self.clock, self.engine = self.world.clock, self.world.engine
        self.records = Records()
        prefixes = Prefixes(store=None, settings=PrefixSettings(disk_mib=0), clock=self.clock)
        self.models = Models(
            catalogue=Catalogue((self.engine,)),
            settings=ModelSettings(default=ENTRY.id),
            defaults=DEFAULTS,
            swap_policy=SwapPolicy.ALLOW,
            machine=self.world.machine,
            residency=self.world.residency,
            learning=self.world.learning,
            keeper=self.world.keeper,
            clock=self.clock,
        )
        self.inference = Inference(
            models=self.models,
            model_settings=ModelSettings(),
            queue_settings=QueueSettings(max_waiting=1, wait_seconds=60.0),
            request_log=self.records,
            learning=self.world.learning,
            sessions=Sessions(learning=self.world.learning, store=NoStore(), clock=self.clock),
            prefixes=prefixes,
            clock=self.clock,
        )

    async def close(self):
        self.inference.refuse_new_work()
        await self.inference.drain(0)
        await self.models.close()
        await self.world.close()

    async def ask(self):
        async def read():
            async with aclosing(self.inference.generate(REQUEST)) as events:
                return [event async for event in events]

        task = asyncio.create_task(read())
        await settle()
        return task


@pytest.fixture
async def house():
    made = House()
    yield made
    await made.close()


async def test_a_request_that_looks_for_its_model_while_the_daemon_stops_is_refused(house, monkeypatch):
    found = asyncio.Event()

    async def slow_models():
        await found.wait()
        return (ENTRY,)

    monkeypatch.setattr(house.engine, "models", slow_models)
    generating = await house.ask()
    loading = asyncio.create_task(house.models.load("", None, None, None, None, lambda progress: None))
    await settle()
    house.inference.refuse_new_work()
    await house.inference.drain(0)
    await house.models.close()
    found.set()
    async with asyncio.timeout(5):
        for task in (generating, loading):
            with pytest.raises(ShuttingDown):
                await task
    assert house.engine.loads_count == 0


async def test_time_in_the_queue_is_recorded_of_a_request_that_got_no_turn(house):
    first, second = await house.ask(), await house.ask()
    house.clock.seconds += 7.0
    second.cancel()
    await asyncio.wait([second])
    await settle()
    assert [(record.queue_seconds, record.finish_reason) for record in house.records] == [(7.0, "cancelled")]
    first.cancel()
    await asyncio.wait([first])


async def test_time_in_a_load_that_failed_is_recorded(house):
    asking = await house.ask()
    house.clock.seconds += 9.0
    house.engine.pending[0].outcome.set_exception(ModelLoadFailed("The engine refused it."))
    with pytest.raises(ModelLoadFailed):
        await asking
    await settle()
    assert [(record.load_seconds, record.queue_seconds) for record in house.records] == [(9.0, 0.0)]


async def test_a_full_queue_is_recorded_with_its_reason(house):
    tasks = [await house.ask() for _ in range(2)]
    with pytest.raises(QueueFull):
        await (await house.ask())
    await settle()
    assert [record.error_reason for record in house.records] == ["QUEUE_FULL"]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_who_waits_for_a_load_is_shown_as_waiting(house):
    asking = await house.ask()
    actor = house.models.running()[0]
    shown = house.models.describe(actor, house.inference.queued_for(ENTRY.id))
    assert (shown.active_requests_count, shown.queued_requests_count) == (0, 1)
    asking.cancel()
    await asyncio.wait([asking])


async def test_a_model_that_failed_to_load_is_not_shown_as_running(house):
    asking = await house.ask()
    house.engine.pending[0].outcome.set_exception(ModelLoadFailed("The engine refused it."))
    with pytest.raises(ModelLoadFailed):
        await asking
    assert house.models.running() == []
    assert (await house.models.get(ENTRY.id)).state is ModelState.FAILED


async def test_a_model_is_not_unloaded_while_it_counts(house, monkeypatch):
    loading = asyncio.create_task(house.models.load("", None, None, None, None, lambda progress: None))
    await settle()
    house.engine.pending[0].outcome.set_result(None)
    lease = await loading
    lease.release()
    may_answer = asyncio.Event()

    async def count(prompt):
        await may_answer.wait()
        return 17

    monkeypatch.setattr(lease.loaded, "count_tokens", count, raising=False)
    counting = asyncio.create_task(house.inference.count_tokens("", HELLO))
    await settle()
    unloading = asyncio.create_task(house.models.unload(ENTRY.id))
    await settle()
    assert lease.loaded.alive
    may_answer.set()
    taken_bytes = house.world.machine.taken_bytes
    assert await counting == (17, True)
    assert await unloading == (True, taken_bytes)
    assert await house.inference.count_tokens("", HELLO) == (SMALL.prompt_tokens + 1, False)


async def test_images_are_refused_by_a_count_that_would_ignore_them(house):
    with pytest.raises(Unsupported, match=r"images are not supported; send text only \(engine llamacpp\)"):
        await house.inference.count_tokens("", IMAGE)
