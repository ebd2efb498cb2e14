"""The model actor under every order of acquire, growth, crash, cancel, failure and unload."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autotuned.core.errors import AutotuneError, ModelLoadFailed, ShuttingDown
from autotuned.core.model import ModelState
from autotuned.core.plan import Need
from autotuned.policy import restart
from tests.examples import DEFAULTS
from tests.services.scripted import HandClock, World

TWO_SLOTS = replace(DEFAULTS, slots_count=2)


class ModelActorMachine(RuleBasedStateMachine):
    """Asks in any order; checks after each step what must always hold."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World(defaults=TWO_SLOTS, clock=HandClock(step_seconds=0.001))
        self.engine = self.world.engine
        self.actor = self.world.actor
        self.asking = []  # (need, task), in the order of asking
        self.leases = []  # (need, lease)
        self.unloading = []
        self.delay_seconds = restart.delay_seconds
        restart.delay_seconds = lambda crashes: 0.0  # the length of the back-off has tests of its own

    def run(self, act=lambda: None):
        """Does something on the loop, then lets every task go as far as it can."""

        async def settle():
            act()
            for _ in range(50):
                await asyncio.sleep(0)

        self.loop.run_until_complete(settle())
        self.collect()

    def collect(self):
        for need, task in list(self.asking):
            if task.done():
                self.asking.remove((need, task))
                if task.cancelled():
                    continue
                error = task.exception()
                if error is None:
                    self.leases.append((need, task.result()))
                else:
                    assert isinstance(error, AutotuneError), error

    @rule(prompt=st.sampled_from([10, 1_000, 5_000, 20_000]), exact=st.booleans())
    def acquire(self, prompt, exact):
        need = Need(prompt_tokens=prompt, prompt_is_exact=exact, reply_tokens=512)

        async def ask():
            return await self.actor.acquire(need, lambda progress: None)

        self.asking.append((need, self.loop.create_task(ask())))
        self.run()

    @precondition(lambda self: self.asking)
    @rule(data=st.data())
    def cancel_an_asking(self, data):
        _, task = data.draw(st.sampled_from(self.asking))
        self.run(task.cancel)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data):
        pair = data.draw(st.sampled_from(self.leases))
        self.leases.remove(pair)
        self.run(pair[1].release)
        self.run(pair[1].release)

    @precondition(lambda self: self.leases and self.asking)
    @rule(data=st.data())
    def release_while_who_waits_is_cancelled(self, data):
        pair = data.draw(st.sampled_from(self.leases))
        self.leases.remove(pair)
        _, task = self.asking[0]

        def both():
            pair[1].release()
            task.cancel()

        self.run(both)

    @precondition(lambda self: self.engine.pending and self.asking)
    @rule()
    def cancel_in_the_moment_of_the_grant(self):
        _, task = self.asking[0]
        load = self.engine.pending[0]

        async def one_step_after_the_other():
            load.outcome.set_result(None)
            for _ in range(50):
                if self.actor.leases_count:
                    break
                await asyncio.sleep(0)
            task.cancel()

        self.loop.run_until_complete(one_step_after_the_other())
        self.run()

    @precondition(lambda self: self.engine.pending)
    @rule(fails=st.booleans())
    def finish_load(self, fails):
        load = self.engine.pending[0]
        if fails:
            load.outcome.set_exception(ModelLoadFailed("The engine refused it."))
        else:
            load.outcome.set_result(None)
        self.run()

    @precondition(lambda self: self.actor.residence is not None)
    @rule()
    def crash(self):
        self.run(self.actor.residence.loaded.crash)

    @precondition(lambda self: self.actor.residence is not None)
    @rule()
    def ask_in_the_moment_of_a_crash(self):
        need = Need(prompt_tokens=10, prompt_is_exact=True, reply_tokens=512)

        async def ask():
            lease = await self.actor.acquire(need, lambda progress: None)
            assert lease.loaded.alive, "a dead incarnation was leased"
            return lease

        def both():
            self.actor.residence.loaded.crash()
            self.asking.append((need, self.loop.create_task(ask())))

        self.run(both)

    @rule()
    def unload(self):
        async def ask():
            return await self.actor.unload()

        self.unloading.append(self.loop.create_task(ask()))
        self.run()

    @precondition(lambda self: any(not task.done() for task in self.unloading))
    @rule()
    def cancel_an_unloading(self):
        task = next(task for task in self.unloading if not task.done())
        self.unloading.remove(task)
        self.run(task.cancel)

    @invariant()
    def loads_are_single_flight(self):
        assert self.engine.most_loads_at_once <= 1

    @invariant()
    def at_most_one_incarnation_lives(self):
        alive = [model for model in self.engine.models_made if model.alive]
        assert len(alive) <= 1
        if self.actor.residence is not None:
            assert alive == [self.actor.residence.loaded]

    @invariant()
    def a_lease_that_holds_keeps_its_incarnation(self):
        """Nothing is unloaded or reloaded under a lease: only a crash may take its model away."""
        for _, lease in self.leases:
            assert lease.loaded.alive or lease.loaded.gone.result() != "unloaded"

    @invariant()
    def every_lease_was_given_a_shape_that_holds_its_need(self):
        for need, lease in self.leases:
            if need.prompt_is_exact:
                assert lease.loaded.shape.context_tokens >= need.prompt_tokens + need.reply_tokens

    @invariant()
    def nobody_waits_for_nothing(self):
        """Who asks waits for a load, for leases to end, or was answered."""
        if self.asking or any(not task.done() for task in self.unloading):
            assert self.engine.pending or self.actor.leases_count > 0

    @invariant()
    def no_lease_is_lost_and_none_is_counted_twice(self):
        residence = self.actor.residence
        held = [lease for _, lease in self.leases if residence and lease.loaded is residence.loaded]
        assert self.actor.leases_count == len(held)

    @invariant()
    def who_left_does_not_stand_in_the_way(self):
        assert len(self.actor._askers) == len(self.asking) + sum(not task.done() for task in self.unloading)

    @invariant()
    def the_state_is_true(self):
        if self.actor.state is ModelState.READY:
            assert self.actor.residence is not None
        if self.engine.pending:
            assert self.actor.state is ModelState.LOADING

    def teardown(self):
        async def close():
            await self.world.close()
            for _, task in self.asking:
                try:
                    await task
                except ShuttingDown:
                    continue
            for task in self.unloading:
                await task

        self.loop.run_until_complete(close())
        assert not any(model.alive for model in self.engine.models_made)
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
        restart.delay_seconds = self.delay_seconds


ModelActorMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestModelActor = ModelActorMachine.TestCase
