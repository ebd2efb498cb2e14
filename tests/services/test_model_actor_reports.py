"""What a model actor tells of itself while it loads, grows, unloads, crashes and closes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from autotuned.core.errors import ShuttingDown
from autotuned.core.model import LoadPhase, LoadProgress, ModelState
from autotuned.core.plan import Need, PlanAction
from autotuned.policy import restart
from tests.services.scripted import FACTS, World

SMALL = Need(prompt_tokens=10, prompt_is_exact=True, reply_tokens=100)
LARGE = Need(prompt_tokens=3_000, prompt_is_exact=True, reply_tokens=100)
LARGEST = Need(prompt_tokens=9_000, prompt_is_exact=True, reply_tokens=100)


async def settle():
    for _ in range(50):
        await asyncio.sleep(0)


class Stage:
    """An actor, its engine, and what those who ask are told."""

    def __init__(self):
        self.world = World()
        self.clock = self.world.clock
        self.engine = self.world.engine
        self.actor = self.world.actor
        self.told = []

    async def ask(self, need=SMALL):
        task = asyncio.create_task(self.actor.acquire(need, self.told.append))
        await settle()
        return task

    async def finish_load(self):
        self.engine.pending[0].outcome.set_result(None)
        await settle()

    async def lease(self, need=SMALL):
        task = await self.ask(need)
        await self.finish_load()
        return await task

    async def end(self):
        await self.world.close()


@pytest.fixture
async def stage():
    made = Stage()
    yield made
    await made.end()


async def test_who_waits_for_a_second_load_is_not_told_how_the_first_one_ended(stage):
    task = await stage.ask()
    stage.engine.pending[0].on_progress(LoadProgress(LoadPhase.READY, 7.0))
    await stage.finish_load()
    (await task).release()
    assert await stage.actor.unload()
    stage.told.clear()
    await stage.ask()
    assert {progress.phase for progress in stage.told} == {LoadPhase.STARTING}
    assert {progress.elapsed_seconds for progress in stage.told} == {0.0}


async def test_a_model_that_is_being_unloaded_drains_and_still_holds_its_memory(stage):
    lease = await stage.lease()
    lease.release()
    asked, may_end = asyncio.Event(), asyncio.Event()
    at_once = lease.loaded.unload

    async def unload():
        asked.set()
        await may_end.wait()
        await at_once()

    lease.loaded.unload = unload
    unloading = asyncio.create_task(stage.actor.unload())
    await asked.wait()
    assert stage.actor.state is ModelState.DRAINING
    assert stage.actor.residence.loaded is lease.loaded
    stage.told.clear()
    waiting = await stage.ask()
    assert stage.told == []  # nothing loads yet
    may_end.set()
    assert await unloading
    await settle()
    assert stage.actor.state is ModelState.LOADING
    await stage.finish_load()
    assert (await waiting).loaded is not lease.loaded


async def test_the_plan_of_a_load_has_the_shape_that_was_applied(stage):
    task = await stage.ask()
    load = stage.engine.pending[0]
    load.shape = planned = replace(load.shape, gpu_layers_count=FACTS.layers_count + 1)
    load.applied = replace(planned, gpu_layers_count=0)
    await stage.finish_load()
    lease = await task
    assert lease.plan.action is PlanAction.LOAD
    assert lease.loaded.shape.gpu_layers_count == 0
    assert lease.plan.shape == lease.loaded.shape
    assert stage.actor.residence.plan.shape == lease.loaded.shape


async def test_one_growth_serves_all_who_wait_for_one(stage):
    lease = await stage.lease()
    first, second = await stage.ask(LARGE), await stage.ask(LARGEST)
    lease.release()
    await settle()
    await stage.finish_load()
    assert (await first).loaded is (await second).loaded
    assert stage.engine.loads_count == 2


async def test_who_waits_is_counted_until_served(stage):
    task = await stage.ask()
    assert (stage.actor.waiting_count, stage.actor.leases_count) == (1, 0)
    await stage.finish_load()
    await task
    assert (stage.actor.waiting_count, stage.actor.leases_count) == (0, 1)


async def test_a_lease_of_now_is_one_only_where_nothing_is_about_to_change(stage):
    assert stage.actor.lease_now() is None
    lease = await stage.lease()
    counting = stage.actor.lease_now()
    assert counting.loaded is lease.loaded
    unloading = asyncio.create_task(stage.actor.unload())
    await settle()
    assert stage.actor.lease_now() is None
    lease.release()
    await settle()
    assert lease.loaded.alive
    counting.release()
    assert await unloading
    assert stage.actor.lease_now() is None


async def test_unloading_is_refused_while_the_actor_closes(stage):
    lease = await stage.lease()
    may_end = asyncio.Event()
    at_once = lease.loaded.unload

    async def unload():
        await may_end.wait()
        await at_once()

    lease.loaded.unload = unload
    closing = asyncio.create_task(stage.actor.close())
    await settle()
    async with asyncio.timeout(5):
        with pytest.raises(ShuttingDown):
            await stage.actor.unload()
    may_end.set()
    await closing


async def test_a_growth_does_not_wait_for_crashes_of_long_ago(stage, monkeypatch):
    delays = []
    monkeypatch.setattr(restart, "delay_seconds", lambda crashes: delays.append(crashes) or 0.0)
    for _ in range(3):
        lease = await stage.lease()
        lease.loaded.crash()
        await settle()
    lease = await stage.lease()
    assert delays == [0, 1, 2, 3]
    stage.clock.seconds += restart.STABLE_AFTER_SECONDS
    lease.release()
    (await stage.lease(LARGE)).release()
    assert delays == [0, 1, 2, 3]
    assert await stage.actor.unload()
    await stage.lease()
    assert delays == [0, 1, 2, 3, 0]


async def test_the_pause_before_a_load_begins_with_the_crash(stage, monkeypatch):
    monkeypatch.setattr(restart, "delay_seconds", lambda crashes: 30.0 if crashes else 0.0)
    lease = await stage.lease()
    lease.loaded.crash()
    await settle()
    early = await stage.ask()
    await settle()
    assert not stage.engine.pending
    early.cancel()
    await stage.actor.close()

    patient = Stage()
    lease = await patient.lease()
    lease.loaded.crash()
    await settle()
    patient.clock.seconds += 30.0
    await patient.lease()
    await patient.end()


async def test_nobody_is_told_the_reasons_of_somebody_elses_need(stage):
    small, large = await stage.ask(SMALL), await stage.ask(LARGE)
    await stage.finish_load()  # one load, in the shape of the first
    first = await small
    assert first.plan.action is PlanAction.LOAD
    third = await stage.ask(SMALL)
    first.release()
    await settle()
    await stage.finish_load()
    grown, reused = (await large).plan, (await third).plan
    assert (grown.action, reused.action) == (PlanAction.GROW, PlanAction.REUSE)
    assert grown.shape == reused.shape
    told = " ".join(reason.text for reason in reused.reasons)
    assert f"{SMALL.prompt_tokens:,} prompt tokens" in told
    assert f"{LARGE.prompt_tokens:,} prompt tokens" not in told
