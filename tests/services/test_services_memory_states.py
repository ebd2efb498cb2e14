"""Models that share a small memory, under every order of requests, crashes, pressure and time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autotuned.core.errors import AutotuneError, ModelLoadFailed, ShuttingDown
from autotuned.core.learning import Learned
from autotuned.core.memory import PressureTier, SwapPolicy
from autotuned.core.plan import Need
from autotuned.policy import restart
from autotuned.policy.footprint import estimate_footprint
from autotuned.services.lease import needed_tokens
from tests.examples import DEFAULTS, LLAMA_3_1_8B
from tests.services.scripted import HandClock, HandLoop, World, entry

GIB = 1 << 30
TOTAL_BYTES = 11 * GIB
MARGIN_BYTES = min(DEFAULTS.margin_bytes, TOTAL_BYTES // 6)
# 128 KiB of KV cache a token: at 32,768 tokens 4 GiB beside 3 GiB of weights.
FACTS = replace(
    LLAMA_3_1_8B,
    weights_bytes=3 * GIB,
    weights_bytes_by_type=(("F16", 3 * GIB),),  # of which the engine makes no second copy
    train_context_tokens=32_768,
)
NAMES = ("first", "second", "third")


class SharedMemoryMachine(RuleBasedStateMachine):
    """Nobody here may swap: what is refused is refused, and what is loaded fits."""

    def __init__(self):
        super().__init__()
        self.loop = HandLoop()
        self.delay_seconds = restart.delay_seconds
        restart.delay_seconds = lambda crashes: 0.0
        self.loop.run_until_complete(self.make())
        self.asking = []  # (model id, need, task)
        self.leases = []  # (model id, need, lease)

    async def make(self):
        self.world = World(
            defaults=replace(DEFAULTS, slots_count=2),
            clock=HandClock(),
            entries=tuple(entry(name, FACTS) for name in NAMES),
            total_bytes=TOTAL_BYTES,
        )
        self.engine, self.machine = self.world.engine, self.world.machine
        load = self.engine.load

        async def checked(entry, shape, on_progress):
            self.check_room(entry, shape)
            return await load(entry, shape, on_progress)

        self.engine.load = checked

    def check_room(self, entry, shape):
        """What is taken, what is promised and the margin fit, at the moment in which a load begins."""
        if self.world.residency.pressure >= PressureTier.ELEVATED:
            return  # a shrink, or the former shape once more, may come when other programs took it all
        alive = [model for model in self.engine.models_made if model.alive]
        promised = sum(model.footprint.host_prompt_cache_bytes for model in alive)
        under_way = sum(
            estimate_footprint(load.entry.facts, load.shape, Learned()).total_bytes
            for load in self.engine.pending
        )
        required = estimate_footprint(entry.facts, shape, Learned()).total_bytes
        free = TOTAL_BYTES - self.machine.others_bytes - self.machine.taken_bytes
        assert free - promised - under_way - required >= MARGIN_BYTES

    def run(self, act=lambda: None):
        async def settle():
            act()
            for _ in range(100):
                await asyncio.sleep(0)

        self.loop.run_until_complete(settle())
        for asked in list(self.asking):
            model_id, need, task = asked
            if not task.done():
                continue
            self.asking.remove(asked)
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                self.leases.append((model_id, need, task.result()))
            else:
                assert isinstance(error, AutotuneError), error

    def do(self, coroutine):
        task = self.loop.create_task(coroutine)
        self.run()
        return task

    @rule(
        name=st.sampled_from(NAMES),
        prompt=st.sampled_from([10, 3_000, 12_000, 28_000]),
        exact=st.booleans(),
        keep_alive=st.sampled_from([None, None, -1.0, 0.0, 30.0]),
    )
    def acquire(self, name, prompt, exact, keep_alive):
        self.ask(name, prompt, exact, keep_alive)

    def ask(self, name, prompt, exact, keep_alive, at_once=lambda: None):
        need = Need(
            prompt_tokens=prompt, prompt_is_exact=exact, reply_tokens=512, swap_policy=SwapPolicy.NEVER
        )
        task = self.loop.create_task(self.world.actors[name].acquire(need, lambda progress: None, keep_alive))
        self.asking.append((name, need, task))
        self.run(at_once)

    @precondition(lambda self: self.asking)
    @rule(data=st.data())
    def cancel_an_asking(self, data):
        self.run(data.draw(st.sampled_from(self.asking))[2].cancel)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data):
        held = data.draw(st.sampled_from(self.leases))
        self.leases.remove(held)
        self.run(held[2].release)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release_while_another_model_is_asked_for(self, data):
        """The moment in which a model becomes idle, and may be wanted at once."""
        held = data.draw(st.sampled_from(self.leases))
        self.leases.remove(held)
        self.ask(data.draw(st.sampled_from(NAMES)), 28_000, True, None, held[2].release)

    @precondition(lambda self: self.engine.pending)
    @rule(data=st.data(), fails=st.booleans())
    def finish_load(self, data, fails):
        load = data.draw(st.sampled_from(self.engine.pending))
        if fails:
            load.outcome.set_exception(ModelLoadFailed("The engine refused it."))
        else:
            load.outcome.set_result(None)
        self.run()

    @rule(name=st.sampled_from(NAMES))
    def crash(self, name):
        residence = self.world.actors[name].residence
        if residence is not None:
            self.run(residence.loaded.crash)

    @rule(name=st.sampled_from(NAMES))
    def unload(self, name):
        self.do(self.world.actors[name].unload())

    @rule(seconds=st.sampled_from([1.0, 20.0, 40.0]))
    def time_goes_by(self, seconds):
        def move():
            self.loop.moved_seconds += seconds
            self.world.clock.seconds += seconds

        self.run(move)

    @rule(others_gib=st.sampled_from([0, 0, 0, 2, 4, 9]))
    def other_programs_come_and_go(self, others_gib):
        self.machine.others_bytes = others_gib * GIB
        self.do(self.world.residency.relieve())

    @invariant()
    def loads_of_a_model_are_single_flight(self):
        assert self.engine.most_loads_at_once <= 1

    @invariant()
    def nobody_is_unloaded_under_a_lease(self):
        for _, _, lease in self.leases:
            assert lease.loaded.alive or lease.loaded.gone.result() != "unloaded"

    @invariant()
    def a_lease_names_a_shape_that_holds_its_need_beside_the_others(self):
        for name in NAMES:
            held = [(need, lease) for model_id, need, lease in self.leases if model_id == name]
            for need, lease in held:
                if need.prompt_is_exact:
                    assert lease.loaded.shape.context_tokens >= needed_tokens(need)
            alive = [lease for _, lease in held if lease.loaded.alive]
            if len(alive) > 1 and alive[0].loaded.shape.kv_unified:
                reserved = sum(lease.reserved_tokens for lease in alive)
                assert reserved <= alive[0].loaded.shape.context_tokens

    @invariant()
    def nobody_waits_for_nothing(self):
        """Who asks for a model waits for its load or for its leases, and never for another model's."""
        loading = {load.entry.id for load in self.engine.pending}
        for name, _, _ in self.asking:
            assert name in loading or self.world.actors[name].leases_count

    @invariant()
    def what_is_reserved_is_given_back(self):
        if not self.engine.pending:
            assert not self.world.residency._reserved
            assert not self.world.residency._arranging.locked()

    @invariant()
    def what_was_computed_is_saved_before_it_is_ended(self):
        for model in self.engine.models_made:
            if not model.alive:
                assert model.gone.result() != "unloaded" or model in self.world.keeper.saved
                assert self.world.keeper.forgotten.count(model) == 1

    @invariant()
    def nobody_outstays_its_keep_alive(self):
        for actor in self.world.actors.values():
            if actor.residence is not None and not actor.is_busy:
                assert not actor.expires_at or actor.expires_at > self.world.clock.now()

    @invariant()
    def no_lease_is_lost_and_none_is_counted_twice(self):
        for name, actor in self.world.actors.items():
            loaded = actor.residence.loaded if actor.residence else None
            held = [lease for model_id, _, lease in self.leases if model_id == name]
            assert actor.leases_count == sum(lease.loaded is loaded for lease in held)

    def teardown(self):
        async def close():
            await self.world.close()
            for _, _, task in self.asking:
                try:
                    await task
                except ShuttingDown:
                    continue

        self.loop.run_until_complete(close())
        restart.delay_seconds = self.delay_seconds
        assert not any(model.alive for model in self.engine.models_made)
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


SharedMemoryMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestSharedMemory = SharedMemoryMachine.TestCase
