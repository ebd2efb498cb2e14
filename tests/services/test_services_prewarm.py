"""Prewarms with the real engine: what they leave behind, and how they give way."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from autotuned.core.chat import ChatInput, Message, ProfileName, Role, TextPart, Tool
from autotuned.core.errors import ContextTooLong, ModelNotFound, ShuttingDown
from autotuned.core.memory import SwapPolicy
from autotuned.core.model import ModelState
from autotuned.core.plan import PlanAction
from tests.examples import DEFAULTS
from tests.services.real_house import chat, finished, real_house, started, text_of

SYSTEM = Message(Role.SYSTEM, (TextPart("You are a terse assistant. " * 30),))
QUESTION = Message(Role.USER, (TextPart("What is the capital of France?"),))
BEGINNING = replace(chat("x"), input=ChatInput((SYSTEM,)))
WHOLE = replace(chat("x"), input=ChatInput((SYSTEM, QUESTION)))
EMPTY = replace(chat("x"), input=ChatInput(()))


@pytest.fixture
async def house():
    async with real_house() as made:
        yield made


async def test_the_first_answer_finds_its_beginning_in_the_cache(house):
    prewarmed = await house.inference.prewarm(BEGINNING)
    assert prewarmed.plan.action is PlanAction.LOAD
    assert not prewarmed.overtaken
    assert prewarmed.cached_tokens == 0
    assert prewarmed.prompt_tokens > 100
    assert 0 < prewarmed.load_seconds < prewarmed.total_seconds
    events = await house.ask(WHOLE)
    assert started(events).plan.action is PlanAction.REUSE
    # All but what a template ends a prompt with.
    assert started(events).cached_tokens >= prewarmed.prompt_tokens - 8
    assert finished(events).timings.load_seconds == 0.0


@pytest.mark.parametrize("prompt_cache_share", [0.0, 0.1])
async def test_the_first_conversation_takes_over_its_slot_and_the_next_has_its_own(prompt_cache_share):
    defaults = replace(DEFAULTS, slots_count=2, prompt_cache_share=prompt_cache_share)
    async with real_house(defaults=defaults) as house:
        prewarmed = await house.inference.prewarm(BEGINNING)
        first = await house.ask(WHOLE)
        assert started(first).cached_tokens >= prewarmed.prompt_tokens - 8
        other = replace(QUESTION, parts=(TextPart("What is a KV cache?"),))
        await house.ask(replace(WHOLE, input=ChatInput((SYSTEM, other))))
        answer = Message(Role.ASSISTANT, (TextPart(text_of(first)),))
        later = await house.ask(replace(WHOLE, input=ChatInput((SYSTEM, QUESTION, answer, other))))
        assert started(later).cached_tokens >= started(first).prompt_tokens - 1


async def test_a_second_prewarm_does_not_disturb_the_conversation_that_took_the_first():
    async with real_house(defaults=replace(DEFAULTS, slots_count=2, prompt_cache_share=0.0)) as house:
        await house.inference.prewarm(BEGINNING)
        first = await house.ask(WHOLE)
        await house.inference.prewarm(BEGINNING)
        answer = Message(Role.ASSISTANT, (TextPart(text_of(first)),))
        later = await house.ask(replace(WHOLE, input=ChatInput((SYSTEM, QUESTION, answer, QUESTION))))
        assert started(later).cached_tokens >= started(first).prompt_tokens - 1
        other = replace(QUESTION, parts=(TextPart("What is a KV cache?"),))
        second = await house.ask(replace(WHOLE, input=ChatInput((SYSTEM, other))))
        assert started(second).cached_tokens > 200


async def test_an_equal_one_finds_everything_cached(house):
    first, second = await asyncio.gather(
        house.inference.prewarm(BEGINNING), house.inference.prewarm(BEGINNING)
    )
    assert not first.overtaken
    assert not second.overtaken
    assert second.prompt_tokens == first.prompt_tokens
    assert second.cached_tokens >= first.prompt_tokens - 1
    assert second.load_seconds == 0.0


async def test_without_messages_and_tools_it_only_loads(house, monkeypatch):
    prewarmed = await house.inference.prewarm(EMPTY)
    assert (prewarmed.prompt_tokens, prewarmed.cached_tokens, prewarmed.overtaken) == (0, 0, False)
    assert prewarmed.plan.action is PlanAction.LOAD
    (actor,) = house.models.running()
    assert (actor.state, actor.leases_count) == (ModelState.READY, 0)
    again = await house.inference.prewarm(EMPTY)
    assert (again.plan.action, again.load_seconds) == (PlanAction.REUSE, 0.0)


async def test_tools_alone_are_prewarmed(house):
    tools = tuple(Tool(f"tool_{n}", "does something useful", '{"type":"object"}') for n in range(10))
    prewarmed = await house.inference.prewarm(replace(EMPTY, input=ChatInput((), tools)))
    assert prewarmed.prompt_tokens > 100
    asked = await house.ask(replace(WHOLE, input=ChatInput((QUESTION,), tools)))
    assert started(asked).cached_tokens > 100


async def test_it_leaves_no_record_and_no_session(house):
    await house.inference.prewarm(BEGINNING)
    await house.inference.drain(0)
    assert await house.request_log.recent(10) == []
    (entry,) = await house.engine.models()
    assert house.learning.of(entry.facts.digest).usual_context_tokens == 0
    assert house.learning.of(entry.facts.digest).tokens_per_byte > 0


async def test_a_prompt_that_outgrows_its_estimate_is_prewarmed_after_a_growth(house):
    lease = await house.models.load("", ProfileName.FAST, 512, None, None, lambda _: None)
    lease.release()
    long = Message(Role.USER, (TextPart("la lo lu " * 400),))
    prewarmed = await house.inference.prewarm(replace(BEGINNING, input=ChatInput((long,))))
    assert prewarmed.plan.action is PlanAction.GROW
    assert prewarmed.prompt_tokens > 512
    assert not prewarmed.overtaken


async def test_a_request_overtakes_it_within_a_batch_and_what_was_done_stays():
    async with real_house(defaults=replace(DEFAULTS, batch_tokens=32)) as house:
        await house.inference.prewarm(EMPTY)
        (actor,) = house.models.running()
        model, original = type(actor.residence.loaded), type(actor.residence.loaded).prefill
        under_way, last = asyncio.Event(), []

        async def prefill(self, request, conversation):
            async with aclosing(original(self, request, conversation)) as steps:
                async for step in steps:
                    last[:] = [step]
                    if step.processed_tokens >= 64:
                        under_way.set()
                    yield step

        model.prefill = prefill
        try:
            long = Message(Role.SYSTEM, (TextPart("la lo lu " * 700),))
            request = replace(BEGINNING, input=ChatInput((long,)))
            prewarming = asyncio.create_task(house.inference.prewarm(request))
            await under_way.wait()
            answered = await house.ask(chat("What is the capital of France?"))
            prewarmed = await prewarming
        finally:
            model.prefill = original
        assert prewarmed.overtaken
        assert last[0].processed_tokens < prewarmed.prompt_tokens
        assert text_of(answered) == "The capital of France is Paris."
        assert house.inference.queued_requests_count == house.inference.active_requests_count == 0


async def test_a_request_that_comes_during_its_load_takes_the_load_over(house, monkeypatch):
    loading, original = asyncio.Event(), house.engine.load

    async def load(*arguments):
        loading.set()
        return await original(*arguments)

    monkeypatch.setattr(house.engine, "load", load)
    prewarming = asyncio.create_task(house.inference.prewarm(BEGINNING))
    await loading.wait()
    events = await house.ask(chat("What is the capital of France?"))
    prewarmed = await prewarming
    assert prewarmed.overtaken
    assert prewarmed.prompt_tokens == 0
    assert started(events).plan.action in {PlanAction.LOAD, PlanAction.REUSE}
    (actor,) = house.models.running()
    assert actor.residence.loaded.shape.context_tokens >= started(events).plan.shape.context_tokens


async def test_what_cannot_be_is_refused_as_for_a_request(house):
    with pytest.raises(ModelNotFound):
        await house.inference.prewarm(replace(BEGINNING, model="nothing"))
    huge = Message(Role.USER, (TextPart("la " * 40_000),))
    with pytest.raises(ContextTooLong):
        await house.inference.prewarm(replace(BEGINNING, input=ChatInput((huge,))))


async def test_a_daemon_that_stops_refuses_it(house):
    house.inference.refuse_new_work()
    with pytest.raises(ShuttingDown):
        await house.inference.prewarm(BEGINNING)


async def test_a_plan_says_what_a_request_would_get_and_loads_nothing(house):
    listing, plan, loaded = await house.inference.plan(EMPTY, None)
    assert (listing.state, loaded, plan.action) == (ModelState.ABSENT, None, PlanAction.LOAD)
    _, larger, _ = await house.inference.plan(replace(EMPTY, profile=ProfileName.QUALITY), 3000)
    assert larger.shape.context_tokens > plan.shape.context_tokens
    assert house.models.running() == []
    events = await house.ask(WHOLE)
    _, planned, loaded = await house.inference.plan(WHOLE, None)
    assert planned.action is PlanAction.REUSE
    assert loaded == started(events).plan.shape
    with pytest.raises(ContextTooLong):
        await house.inference.plan(EMPTY, 9000)


async def test_a_need_carries_everything_that_a_plan_asks(house):
    request = replace(
        WHOLE,
        profile=ProfileName.FAST,
        max_reply_tokens=100,
        swap_policy=SwapPolicy.NEVER,
        input=ChatInput((SYSTEM, QUESTION), (Tool("ls", "lists", "{}"),)),
    )
    need = await house.inference.need(request)
    assert (need.profile, need.reply_tokens, need.swap_policy) == (ProfileName.FAST, 100, SwapPolicy.NEVER)
    assert need.session_tokens == need.prompt_tokens + 20 * 300 + 100
    assert not need.prompt_is_exact
    assert (await house.inference.need(WHOLE)).swap_policy is SwapPolicy.ALLOW
