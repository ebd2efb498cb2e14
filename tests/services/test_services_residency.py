"""Models that share memory: who leaves for whom, what is refused, growth, pressure, keep-alive, shared slots."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from autotuned.core.errors import ContextTooLong, ModelLoadFailed, WouldSwap
from autotuned.core.generation import Usage
from autotuned.core.memory import PressureTier, SwapPolicy
from autotuned.core.model import CacheLayout, LoadPhase, ModelState
from autotuned.core.plan import Need, PlanAction
from autotuned.policy import restart
from autotuned.services import incarnations
from autotuned.services.residency import REST_SECONDS
from tests.examples import DEFAULTS, LLAMA_3_1_8B
from tests.services import scripted
from tests.services.scripted import HandLoop, World, entry

GIB = 1 << 30
# 3 GiB of weights and 128 KiB of KV cache a token.
FACTS = replace(
    LLAMA_3_1_8B,
    weights_bytes=3 * GIB,
    weights_bytes_by_type=(("F16", 3 * GIB),),  # of which the engine makes no second copy
    train_context_tokens=32_768,
)
NEVER = SwapPolicy.NEVER
NO_PROMPT_CACHE = replace(DEFAULTS, prompt_cache_share=0.0)


def need(prompt_tokens=10, **options):
    options = {"prompt_is_exact": True, "reply_tokens": 512, "swap_policy": NEVER} | options
    return Need(prompt_tokens=prompt_tokens, **options)


LARGE = need(12_000)


async def settle():
    for _ in range(100):
        await asyncio.sleep(0)


class Stage(World):
    def __init__(self, *names, total_gib=11, **options):
        entries = tuple(entry(name, FACTS) for name in names or ("first", "second", "third"))
        options = {"defaults": NO_PROMPT_CACHE} | options
        super().__init__(entries=entries, total_bytes=total_gib * GIB, **options)
        self.told = []

    async def ask(self, name, wanted=None, keep_alive_seconds=None):
        task = asyncio.create_task(
            self.actors[name].acquire(wanted or need(), self.told.append, keep_alive_seconds)
        )
        await settle()
        return task

    async def finish_loads(self, error=None):
        for load in tuple(self.engine.pending):
            load.outcome.set_exception(error) if error else load.outcome.set_result(None)
        await settle()

    async def lease(self, name, wanted=None, keep_alive_seconds=None):
        task = await self.ask(name, wanted, keep_alive_seconds)
        await self.finish_loads()
        lease, wanted = await task, wanted or need()
        lease.came_to(Usage(wanted.prompt_tokens, 0, wanted.reply_tokens))
        return lease

    async def use(self, name, wanted=None):
        """Loads the model, if need be, and leaves it idle, one second later than whoever was before."""
        self.clock.seconds += 1.0
        (await self.lease(name, wanted)).release()
        await settle()

    @property
    def loaded(self):
        return {name for name, actor in self.actors.items() if actor.residence is not None}


@pytest.fixture
async def stage():
    made = Stage()
    yield made
    await made.close()


async def test_the_model_that_was_used_longest_ago_leaves_for_the_next(stage):
    await stage.use("second")
    await stage.use("first")
    lease = await stage.lease("third")
    assert stage.loaded == {"first", "third"}
    assert lease.plan.evictions == ("second",)
    told = " ".join(reason.text for reason in lease.plan.reasons)
    assert "Idle second leaves memory for it" in told
    assert lease.plan.available_before_bytes < 5 * GIB
    assert [model.unloads_count for model in stage.keeper.saved] == [1]  # saved, then ended


async def test_who_needs_the_memory_of_a_busy_model_is_refused_and_told_who_is_in_use(stage):
    first, second = await stage.lease("first"), await stage.lease("second")
    with pytest.raises(WouldSwap) as refused:
        await stage.lease("third")
    assert '"first" and "second" are in use and keep 6.7 GiB.' in refused.value.message
    assert int(refused.value.metadata["requiredBytes"]) > int(refused.value.metadata["availableBytes"])
    assert first.loaded.alive
    assert second.loaded.alive
    second.release()
    assert (await stage.lease("third")).plan.evictions == ("second",)


async def test_two_models_that_want_the_memory_of_each_other_do_not_wait_for_each_other():
    stage = Stage("first", "second", total_gib=11)
    await stage.use("first")
    await stage.use("second")
    tasks = [await stage.ask(name, need(28_000)) for name in ("first", "second")]
    async with asyncio.timeout(5):
        await stage.finish_loads()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, WouldSwap)]
        granted = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        assert (len(granted), len(refused)) == (1, 1)
        assert stage.loaded == {granted[0].model_id}
    await stage.close()


async def test_room_is_found_for_one_load_at_a_time_and_stays_reserved_until_it_is_taken(stage):
    """Both fit alone. The second is planned while the first has not taken its memory yet."""
    first = await stage.ask("first", LARGE)
    second = await stage.ask("second", need(28_000))
    assert isinstance(second.exception(), WouldSwap)
    third = await stage.ask("third")
    assert {load.entry.id for load in stage.engine.pending} == {"first", "third"}
    await stage.finish_loads()
    await asyncio.gather(first, third)


async def test_what_other_models_may_still_take_is_not_given_away():
    """The host prompt cache is empty when a model is loaded, and promised nevertheless."""
    stage = Stage("first", "second", total_gib=24, defaults=DEFAULTS)
    lease = await stage.lease("first")
    promised = lease.loaded.footprint.host_prompt_cache_bytes
    assert promised > GIB
    view = stage.residency.view("second")
    assert view.reserved_bytes == promised
    assert [resident.freed_bytes for resident in view.residents] == [lease.loaded.footprint.total_bytes]
    assert [resident.promised_bytes for resident in view.residents] == [promised]
    assert stage.residency.promised_bytes("first") == promised
    assert stage.residency.promised_bytes("second") == 0
    await stage.close()


@pytest.mark.parametrize("layout", list(CacheLayout))
async def test_a_cache_that_fills_later_is_not_given_away_either(monkeypatch, layout):
    """MLX takes the memory of its KV cache as the context fills."""
    cache_bytes = 0

    def taken(model):
        return model.footprint.total_bytes - model.footprint.host_prompt_cache_bytes - cache_bytes

    monkeypatch.setattr(scripted, "_taken", taken)
    stage = Stage("first", "second", total_gib=24, defaults=DEFAULTS)
    entry = stage.actors["first"].entry
    stage.actors["first"]._incarnations.entry = replace(
        entry, facts=replace(entry.facts, cache_layout=layout)
    )
    lease = await stage.lease("first", LARGE)
    cache_bytes = lease.loaded.footprint.kv_cache_bytes
    await stage.residency.refresh()
    promised = lease.loaded.footprint.host_prompt_cache_bytes
    if layout is CacheLayout.MLX:
        promised += cache_bytes
    assert stage.residency.promised_bytes("first") == promised
    await stage.close()


async def test_a_model_that_somebody_comes_for_stays_and_the_plan_is_made_again(stage):
    """Two are to leave; while the first does, the second is asked for."""
    await stage.use("first")
    await stage.use("second")
    first, second = stage.actors["first"], stage.actors["second"]
    at_once = first.residence.loaded.unload
    held = []

    async def unload():
        held.append(await second.acquire(need(), lambda progress: None))
        await at_once()

    first.residence.loaded.unload = unload
    third = await stage.ask("third", need(40 * 512))
    await stage.finish_loads()
    assert held[0].loaded.alive
    assert second.residence.loaded is held[0].loaded
    outcome = await asyncio.gather(third, return_exceptions=True)
    assert isinstance(outcome[0], WouldSwap) or outcome[0].plan.evictions == ("first",)


async def test_an_unload_under_way_is_waited_for_before_room_is_counted(stage):
    await stage.use("first", LARGE)
    await stage.use("second")
    may_end, first = asyncio.Event(), stage.actors["first"]
    at_once = first.residence.loaded.unload

    async def unload():
        await may_end.wait()
        await at_once()

    first.residence.loaded.unload = unload
    unloading = asyncio.create_task(first.unload())
    await settle()
    third = await stage.ask("third", LARGE)
    assert not third.done()
    assert not stage.engine.pending
    may_end.set()
    await settle()
    assert await unloading
    await stage.finish_loads()
    assert (await third).plan.evictions == ()
    assert "second" in stage.loaded


async def test_a_growth_saves_reloads_and_is_never_refused_to_who_fits_already(stage):
    await stage.use("first")
    small = stage.actors["first"].residence.loaded
    lease = await stage.lease("first", LARGE)
    assert lease.plan.action is PlanAction.GROW
    assert stage.keeper.saved == [small]
    assert stage.keeper.forgotten == [small]
    assert not small.alive


async def test_a_growth_that_memory_cannot_hold_keeps_the_worker_and_serves_the_others(stage):
    await stage.use("first")
    loaded = stage.actors["first"].residence.loaded
    stage.machine.others_bytes = 7 * GIB
    with pytest.raises(WouldSwap):
        await stage.lease("first", need(28_000))
    assert stage.actors["first"].residence.loaded is loaded
    assert loaded.alive
    assert (await stage.lease("first")).loaded is loaded


async def test_one_refusal_is_nobody_elses(stage):
    await stage.use("first")
    held = await stage.lease("first")
    stage.machine.others_bytes = 5 * GIB
    too_large = await stage.ask("first", need(28_000))
    larger = await stage.ask("first", need(6_000))
    held.release()
    await settle()
    await stage.finish_loads()
    assert isinstance(too_large.exception(), WouldSwap)
    assert (await larger).loaded.shape.context_tokens >= 6_512


async def test_a_growth_that_fails_loads_the_former_shape_and_refuses_only_who_needs_more(stage):
    await stage.use("first")
    before = stage.actors["first"].residence
    larger = await stage.ask("first", LARGE)
    small = await stage.ask("first")
    await stage.finish_loads(ModelLoadFailed("The engine refused it."))
    assert stage.engine.pending[0].shape == before.loaded.shape
    await stage.finish_loads()
    assert isinstance(larger.exception(), ModelLoadFailed)
    lease = await small
    assert lease.loaded.shape == before.loaded.shape
    assert stage.actors["first"].state is ModelState.READY


async def test_where_the_former_shape_fails_too_everybody_learns_of_it(stage):
    await stage.use("first")
    larger, small = await stage.ask("first", LARGE), await stage.ask("first")
    await stage.finish_loads(ModelLoadFailed("The engine refused it."))
    await stage.finish_loads(ModelLoadFailed("Again."))
    assert isinstance(larger.exception(), ModelLoadFailed)
    assert isinstance(small.exception(), ModelLoadFailed)
    assert stage.actors["first"].state is ModelState.FAILED


async def test_what_the_model_cannot_hold_is_too_long_whatever_memory_there_is(stage):
    stage.machine.others_bytes = 10 * GIB
    with pytest.raises(ContextTooLong):
        await stage.lease("first", need(40_000))


async def test_a_refusal_is_decided_by_fresh_facts(stage):
    stage.machine.others_bytes = 10 * GIB
    with pytest.raises(WouldSwap):
        await stage.lease("first")
    stage.machine.others_bytes = 0
    (await stage.lease("first")).release()


async def test_a_worker_that_dies_while_room_is_made_is_replaced_and_not_waited_for(stage):
    await stage.use("first")
    loaded = stage.actors["first"].residence.loaded
    async with stage.residency._arranging:
        larger = await stage.ask("first", LARGE)
        loaded.crash()
        await settle()
        assert stage.actors["first"].residence is None
    await settle()
    await stage.finish_loads()
    assert (await larger).plan.action is PlanAction.LOAD


async def test_a_close_saves_what_is_loaded_and_does_not_wait_for_a_save_that_hangs(stage, monkeypatch):
    monkeypatch.setattr(incarnations, "CLOSING_SAVE_SECONDS", 0.01)
    held, idle = await stage.lease("first"), await stage.lease("second")
    save = stage.keeper.save

    async def hang(loaded, within_seconds):
        await save(loaded, within_seconds)
        if loaded is idle.loaded:
            await asyncio.Event().wait()

    stage.keeper.save = hang
    async with asyncio.timeout(5):
        await stage.close()
    assert set(stage.keeper.saved) == {held.loaded, idle.loaded}
    assert not held.loaded.alive
    assert not idle.loaded.alive


# Pressure


async def test_under_pressure_models_that_rest_leave_one_by_one_until_it_is_over(stage):
    await stage.use("first")
    await stage.use("second")
    stage.machine.others_bytes = int(3.3 * GIB)
    await stage.residency.relieve()
    assert stage.residency.pressure is PressureTier.HIGH
    stage.clock.seconds += REST_SECONDS[PressureTier.HIGH]
    await stage.residency.relieve()
    assert stage.residency.pressure < PressureTier.HIGH
    assert stage.loaded == {"second"}
    await stage.residency.relieve()
    assert stage.loaded == {"second"}


async def test_under_pressure_a_model_in_use_or_just_used_stays(stage):
    held = await stage.lease("first")
    await stage.use("second")
    stage.machine.others_bytes = 4 * GIB
    await stage.residency.relieve()
    assert stage.residency.pressure is PressureTier.CRITICAL
    assert stage.loaded == {"first", "second"}
    stage.clock.seconds += REST_SECONDS[PressureTier.CRITICAL]
    await stage.residency.relieve()
    assert stage.loaded == {"first"}
    assert held.loaded.alive


async def test_under_critical_pressure_a_model_shrinks_as_soon_as_nobody_uses_it():
    stage = Stage("first", total_gib=16)
    await stage.use("first", need(28_000))
    held = await stage.lease("first")
    stage.machine.others_bytes = 16 * GIB - stage.machine.taken_bytes - GIB // 2
    await stage.residency.relieve()
    assert stage.residency.pressure is PressureTier.CRITICAL
    assert stage.actors["first"].residence.loaded is held.loaded
    held.release()
    await settle()
    assert stage.keeper.saved == [held.loaded]
    await stage.finish_loads()
    shrunk = stage.actors["first"].residence
    assert shrunk.loaded.shape.context_tokens < held.loaded.shape.context_tokens
    assert shrunk.plan.action is PlanAction.SHRINK

    reused = await stage.lease("first")
    assert reused.plan.action is PlanAction.REUSE
    counted = stage.actors["first"].plan(need(20), shrunk.loaded.shape)
    for plan in (reused.plan, counted):
        assert "shrunk" in {reason.code for reason in plan.reasons}
    reused.release()

    stage.machine.others_bytes = 0  # memory is back: nothing is loaded before somebody needs it
    await stage.residency.relieve()
    await settle()
    assert stage.residency.pressure is PressureTier.NORMAL
    assert stage.actors["first"].residence is shrunk
    grown = await stage.lease("first", need(20_000))
    assert grown.plan.action is PlanAction.GROW
    assert "shrunk" not in {reason.code for reason in grown.plan.reasons}
    await stage.close()


async def test_a_shrink_keeps_what_the_latest_conversation_came_to_and_not_what_it_had_room_for():
    stage = Stage("first", total_gib=16)
    lease = await stage.lease("first", need(1_000, reply_tokens=20_000))
    lease.came_to(Usage(1_000, 0, 500))
    large = lease.loaded
    stage.machine.others_bytes = 16 * GIB - stage.machine.taken_bytes - GIB // 2
    await stage.residency.relieve()
    lease.release()
    actor = stage.actors["first"]
    assert actor._leases.latest_tokens(large) == 1_500
    await settle()
    await stage.finish_loads()
    small = actor.residence.loaded
    assert 1_500 < small.shape.context_tokens <= 4_096
    assert actor._leases.latest_tokens(small) == 0  # of this incarnation there was none
    await stage.close()


async def test_whatever_a_save_raises_the_model_leaves(stage, caplog):
    await stage.use("first")
    loaded = stage.actors["first"].residence.loaded

    async def fail(_loaded, _within_seconds):
        raise RuntimeError("the disk is on fire")

    stage.keeper.save = fail
    assert await stage.actors["first"].unload()
    assert not loaded.alive
    assert stage.loaded == set()
    assert "prefixes were not saved" in caplog.messages


async def test_tokens_that_a_lease_gives_back_serve_who_waits():
    stage = Stage("first", defaults=replace(NO_PROMPT_CACHE, slots_count=2))
    await stage.use("first", need(8_000))
    held = await stage.lease("first", need(6_000))
    waiting = await stage.ask("first", need(6_000))
    assert not waiting.done()
    assert held.claim(need(500))
    await settle()
    assert waiting.done()
    assert (await waiting).loaded is held.loaded
    await stage.close()


async def test_a_shrink_that_fails_is_not_tried_again_and_again():
    stage = Stage("first", total_gib=16)
    await stage.use("first", need(28_000))
    (await stage.lease("first")).release()
    before = stage.actors["first"].residence.loaded.shape
    stage.machine.others_bytes = 16 * GIB - stage.machine.taken_bytes - GIB // 2
    await stage.residency.relieve()
    await settle()
    await stage.finish_loads(ModelLoadFailed("The engine refused it."))
    await stage.finish_loads()
    assert stage.actors["first"].residence.loaded.shape == before
    loads_count = stage.engine.loads_count
    await stage.residency.relieve()
    await settle()
    assert stage.engine.loads_count == loads_count
    await stage.close()


# Keep-alive


def on_hand_loop(play):
    """Plays on a loop whose time moves only by hand: ``move(seconds)``."""
    loop = HandLoop()

    async def run():
        stage = Stage("first")

        async def move(seconds):
            loop.moved_seconds += seconds
            stage.clock.seconds += seconds
            await settle()

        await play(stage, move)
        await stage.close()

    loop.run_until_complete(run())
    loop.close()


def test_an_idle_model_leaves_when_its_keep_alive_is_over_and_not_before():
    async def play(stage, move):
        lease = await stage.lease("first", keep_alive_seconds=60.0)
        assert stage.actors["first"].expires_at == stage.clock.now() + 60.0
        await move(100.0)
        assert stage.loaded == {"first"}  # in use
        lease.release()
        await move(59.0)
        assert stage.loaded == {"first"}
        assert stage.actors["first"].expires_at == stage.clock.now() + 1.0
        await move(2.0)
        assert stage.loaded == set()
        assert stage.keeper.saved == [lease.loaded]

    on_hand_loop(play)


def test_each_use_starts_the_keep_alive_anew_and_the_last_one_that_says_something_wins():
    async def play(stage, move):
        (await stage.lease("first", keep_alive_seconds=60.0)).release()
        await move(50.0)
        (await stage.lease("first")).release()  # says nothing: 60 s stay
        await move(50.0)
        assert stage.loaded == {"first"}
        (await stage.lease("first", keep_alive_seconds=-1.0)).release()
        assert stage.actors["first"].expires_at == 0.0
        await move(1_000.0)
        assert stage.loaded == {"first"}
        (await stage.lease("first", keep_alive_seconds=0.0)).release()
        await settle()
        assert stage.loaded == set()
        await stage.use("first")  # the configured one again
        await move(1_000.0)
        assert stage.loaded == {"first"}

    on_hand_loop(play)


def test_who_comes_in_the_moment_of_the_expiry_is_served():
    async def play(stage, move):
        (await stage.lease("first", keep_alive_seconds=0.0)).release()
        waiting = await stage.ask("first")
        await stage.finish_loads()
        assert (await waiting).loaded.alive

    on_hand_loop(play)


# Waiting


async def test_a_client_is_told_that_a_load_waits_after_crashes(stage, monkeypatch):
    monkeypatch.setattr(restart, "delay_seconds", lambda crashes: 30.0 if crashes else 0.0)
    (await stage.lease("first")).loaded.crash()
    await settle()
    stage.told.clear()
    waiting = await stage.ask("first")
    assert {progress.phase for progress in stage.told} == {LoadPhase.WAITING}
    waiting.cancel()
    await settle()


async def test_waiting_for_others_is_not_loading(stage):
    held = await stage.lease("first")
    larger = await stage.ask("first", LARGE)
    stage.clock.seconds += 40.0  # of another's answer
    held.release()
    await settle()
    stage.clock.seconds += 3.0  # of the growth
    await stage.finish_loads()
    lease = await larger
    assert (lease.waited_seconds, lease.load_seconds) == (43.0, 3.0)


async def test_slots_that_share_a_cache_share_its_tokens():
    stage = Stage("first", defaults=replace(NO_PROMPT_CACHE, slots_count=2))
    first = await stage.lease("first", need(context_tokens=4_096))
    context = first.loaded.shape.context_tokens
    assert first.loaded.shape.kv_unified
    second = await stage.ask("first", need(context - 512 - 300))
    assert not second.done()  # beside the first it does not fit, alone it does
    assert not stage.engine.pending
    third = await stage.ask("first")
    assert not third.done()  # one after the other
    first.release()
    await settle()
    lease = await second
    assert lease.loaded is first.loaded
    assert not third.done()
    lease.release()
    await third
    await stage.close()


async def test_an_exact_count_claims_the_tokens_that_others_leave():
    stage = Stage("first", defaults=replace(NO_PROMPT_CACHE, slots_count=2))
    estimate = need(100, prompt_is_exact=False)
    first = await stage.lease("first", estimate)
    context = first.loaded.shape.context_tokens
    second = await stage.lease("first", estimate)
    left_tokens = context - 612
    assert not second.claim(need(left_tokens - 512 + 1))
    assert second.claim(need(left_tokens - 512))
    first.release()
    assert second.claim(need(context))  # alone it has all of it
    await stage.close()
