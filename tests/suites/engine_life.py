"""How an engine's models are loaded, shared, cancelled and ended."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from dataclasses import replace

import pytest

from autotuned.core.errors import (
    EngineUnreachable,
    ModelInvalid,
)
from autotuned.core.generation import (
    EngineFinished,
    PrefillProgress,
    TextDelta,
)
from autotuned.core.model import LoadPhase, LoadProgress
from tests.suites.engine_case import (
    TALK,
    OneModel,
    answer,
    ask,
    needs,
    needs_knobs,
    text_of,
    until_idle,
)

# Loads of which at least one is slow enough to be cancelled.
LOADS = 5


class EngineLife(OneModel):
    """One part of ``EngineSuite``."""

    # What it says of itself.

    def test_has_a_name_and_a_version(self, case):
        assert case.engine.name == case.engine.name.lower() != ""
        assert case.engine.version

    async def test_lists_the_model_with_its_facts(self, case):
        local = case.engine.capabilities().is_local
        found = {entry.id: entry for entry in await case.engine.models()}[case.entry.id]
        assert found == case.entry
        assert found.engine == case.engine.name
        assert found.facts is not None
        assert found.problem == ""
        # What servers far away tell of a model is not what plans of memory need.
        assert (found.facts.layers_count, found.facts.train_context_tokens) == (4, 8192) or not local

    # Loading.

    async def test_a_load_tells_its_phases_in_order(self, case):
        seen: list[LoadProgress] = []
        model = await case.engine.load(case.entry, case.shape, seen.append)
        await model.unload()
        phases = [progress.phase for progress in seen]
        order = list(LoadPhase)
        assert phases == sorted(phases, key=order.index)
        assert phases[0] is LoadPhase.STARTING
        assert phases[-1] is LoadPhase.READY
        times = [progress.elapsed_seconds for progress in seen]
        assert times == sorted(times)

    async def test_a_load_applies_the_shape(self, case, model):
        wanted = {name: getattr(case.shape, name) for name in model.shape.assumed}
        assert replace(model.shape, assumed=(), **wanted) == case.shape

    async def test_each_load_is_an_incarnation_of_its_own(self, case, model):
        other = await case.load()
        try:
            assert other.incarnation_id != model.incarnation_id
            assert other.process_id != model.process_id or model.process_id == 0
        finally:
            await other.unload()

    async def test_a_model_with_a_problem_is_not_loaded(self, case):
        broken = replace(case.entry, facts=None, problem="It is broken.")
        with pytest.raises(ModelInvalid, match="It is broken"):
            await case.engine.load(broken, case.shape, lambda _: None)

    # Several at a time.

    async def test_two_slots_answer_two_requests_at_the_same_time(self, case):
        needs_knobs(case, "slots_count")
        model = await case.load(slots_count=2)
        order: list[tuple[str, type]] = []

        async def run(name, text):
            async with aclosing(model.generate(ask(text, max_reply_tokens=150), TALK)) as events:
                async for event in events:
                    order.append((name, type(event)))  # noqa: PERF401 - the order of both together

        try:
            assert model.shape.slots_count == 2
            await asyncio.gather(run("a", "Count from 1 to 79."), run("b", "Count from 2 to 79."))
        finally:
            await model.unload()
        begun = [order.index((name, TextDelta)) for name in "ab"]
        ended = [order.index((name, EngineFinished)) for name in "ab"]
        assert max(begun) < min(ended)

    async def test_a_request_beyond_the_slots_is_served_after_them(self, model):
        texts = await asyncio.gather(
            *(answer(model, ask("What is the capital of France?")) for _ in range(4))
        )
        assert {text_of(events) for events in texts} == {"The capital of France is Paris."}

    # Cancelling.

    async def test_closing_in_decode_stops_the_engine(self, case, model):
        async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
            seen = 0
            async for event in events:
                seen += isinstance(event, TextDelta)
                if seen == 3:
                    break
        await until_idle(case, model)
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"

    async def test_closing_in_prefill_stops_after_the_batch_and_keeps_what_was_done(self, case):
        needs(case, "counts_before_prefill", "exact_token_counts")
        needs_knobs(case, "batch_tokens")
        model = await case.load(context_tokens=8192, batch_tokens=32, micro_batch_tokens=32)
        try:
            request = ask("Repeat: " + "la lo lu " * 1200, max_reply_tokens=1)
            total = await model.count_tokens(request.input)
            assert total > 3000
            async with aclosing(model.generate(request, TALK)) as events:
                async for event in events:
                    assert isinstance(event, PrefillProgress)
                    if event.processed_tokens >= 64:
                        break
            await until_idle(case, model)
            async with aclosing(model.generate(request, TALK)) as events:
                again = await anext(events)
            assert event.processed_tokens <= again.cached_tokens < total // 2
        finally:
            await model.unload()

    async def test_cancelling_the_task_stops_the_engine(self, case, model):
        started = asyncio.Event()

        async def run():
            async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
                async for _ in events:
                    started.set()

        task = asyncio.create_task(run())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_idle(case, model)

    async def test_a_generation_that_was_never_begun_costs_nothing(self, case, model):
        await model.generate(ask("Hello!"), TALK).aclose()
        assert await case.active_requests(model) == 0

    @pytest.mark.parametrize("phase", [LoadPhase.STARTING, LoadPhase.READING_WEIGHTS, LoadPhase.ALLOCATING])
    async def test_a_load_can_be_cancelled_in_every_phase(self, case, phase):
        needs(case, "is_local")
        if phase not in case.load_phases:
            pytest.skip("loads of this engine cannot be seen there")
        for _ in range(LOADS):
            reached = asyncio.Event()

            def notice(progress, reached=reached):
                if progress.phase is phase:
                    reached.set()

            task = asyncio.create_task(case.engine.load(case.entry, case.shape, notice))
            await reached.wait()
            task.cancel()
            try:
                model = await task
            except asyncio.CancelledError:
                return
            # On a busy machine all phases may be seen at once, when the load is over.
            await model.unload()
        pytest.fail(f"{LOADS} loads were over before they could be cancelled")

    # The end.

    async def test_unload_may_be_called_twice_and_at_the_same_time(self, case):
        model = await case.load()
        waiting = asyncio.create_task(model.wait_gone())
        assert not model.is_gone
        await asyncio.gather(model.unload(), model.unload())
        assert model.is_gone
        await model.unload()
        assert await waiting == await model.wait_gone() != ""

    async def test_after_unload_nothing_is_answered(self, case):
        model = await case.load()
        await model.unload()
        with pytest.raises(EngineUnreachable):
            await answer(model, ask("Hello!"))
        needs(case, "exact_token_counts")
        with pytest.raises(EngineUnreachable):
            await model.count_tokens("hello")

    async def test_unload_ends_what_runs(self, case):
        model = await case.load()
        async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
            await anext(events)
            await model.unload()
            with pytest.raises(EngineUnreachable):
                async for _ in events:
                    pass

    async def test_a_killed_process_fails_its_requests_and_says_why(self, case):
        model = await case.load(slots_count=case.slots(2))
        if model.process_id == 0:
            pytest.skip("this engine has no process of its own")
        failures = []

        async def run():
            try:
                await answer(model, ask("Count from 1 to 79."))
            except EngineUnreachable as error:
                failures.append(error)

        async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
            await anext(events)
            other = asyncio.create_task(run())
            os.kill(model.process_id, signal.SIGKILL)
            with pytest.raises(EngineUnreachable, match="killed by signal 9"):
                async for _ in events:
                    pass
            assert model.is_gone
        await other
        assert len(failures) == 1
        assert "killed by signal 9" in await model.wait_gone()
        with pytest.raises(EngineUnreachable, match="killed by signal 9"):
            await answer(model, ask("Hello!"))
        fresh = await case.load()
        try:
            assert text_of(await answer(fresh, ask("Hello!"))) == "Hello! How can I help you?"
        finally:
            await fresh.unload()

    async def test_wait_gone_waits(self, model):
        waiting = asyncio.create_task(model.wait_gone())
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"
