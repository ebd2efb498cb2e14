"""A reply that comes to the end of its context: it goes on in a larger one, or says why it does not."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace

import pytest

from autotuned.core.chat import ProfileName, RawPrompt, Tool
from autotuned.core.errors import EngineUnreachable, Unsupported, WouldSwap
from autotuned.core.generation import FinishReason, PrefillProgress, Queued, Started, TextDelta
from tests.services.real_house import GREEDY, chat, finished, only, real_house, started, text_of

# The pocket model's stories are short; without its closing tokens it goes on for ever.
ENDLESS = replace(GREEDY, logit_bias=((0, -100.0), (1, -100.0), (2, -100.0)))
FIRST_CONTEXT = 1024  # of a first message of the fast profile


def story(**changes):
    return chat("Tell me a story.", sampling=ENDLESS, profile=ProfileName.FAST, **changes)


@pytest.fixture
async def house():
    async with real_house() as made:
        yield made


async def done(value):
    return value


async def record_of(house):
    (record,) = await house.request_log.recent(10)
    return record


def context_of(house):
    (actor,) = house.models.running()
    return actor.residence.loaded.shape.context_tokens


async def in_large_context(request, context_tokens=4096):
    """What the model writes where the context is large from the start."""
    async with real_house() as large:
        lease = await large.models.load("", ProfileName.FAST, context_tokens, None, None, lambda _: None)
        lease.release()
        return await large.ask(request)


@pytest.mark.parametrize("raw", [False, True])
async def test_it_goes_on_as_one_reply_with_the_text_of_a_large_context(house, raw):
    request = story(max_reply_tokens=1500)
    if raw:
        request = replace(request, input=RawPrompt("Once upon a time"))
    events = await house.ask(request)
    assert started(events).plan.shape.context_tokens == FIRST_CONTEXT
    assert text_of(events) == text_of(await in_large_context(request))
    end = finished(events)
    assert events[-1] is end
    assert end.finish_reason is FinishReason.LENGTH
    assert end.usage.reply_tokens == 1500
    assert end.usage.prompt_tokens == started(events).prompt_tokens < 20
    assert context_of(house) == 2048
    for event in events[events.index(started(events)) + 1 : -1]:
        assert isinstance(event, TextDelta)


async def test_growing_costs_a_load_and_no_prefill(house, monkeypatch):
    evaluated = []
    lease = await house.models.load("", ProfileName.FAST, None, None, None, lambda _: None)
    lease.release()
    model, original = type(lease.loaded), type(lease.loaded).generate

    async def generate(self, request, conversation):
        first = True
        async with aclosing(original(self, request, conversation)) as events:
            async for event in events:
                if isinstance(event, PrefillProgress) and first:
                    evaluated.append(event.prompt_tokens - event.cached_tokens)
                    first = False
                yield event

    monkeypatch.setattr(model, "generate", generate)
    events = await house.ask(story(max_reply_tokens=1500))
    assert len(evaluated) == 2
    assert evaluated[1] <= 2
    timings = finished(events).timings
    assert timings.load_seconds > 0
    assert timings.load_seconds + timings.decode_seconds < timings.total_seconds


async def test_it_is_one_request_in_the_records(house):
    events = await house.ask(story(max_reply_tokens=1500))
    await house.inference.drain(0)
    record = await record_of(house)
    assert (record.finish_reason, record.error_reason) == ("length", "")
    assert record.reply_tokens == 1500
    assert record.prompt_tokens == started(events).prompt_tokens
    assert record.shape.context_tokens == 2048


async def test_it_ends_where_the_model_can_have_no_larger_context(house, monkeypatch, caplog):
    (pocket,) = await house.engine.models()
    facts = replace(pocket.facts, train_context_tokens=1536)
    monkeypatch.setattr(house.engine, "models", lambda: done((replace(pocket, facts=facts),)))
    with caplog.at_level(logging.INFO, "autotuned.services.generation"):
        end = finished(await house.ask(story()))
    assert end.finish_reason is FinishReason.LENGTH
    assert end.usage.prompt_tokens + end.usage.reply_tokens == 1536
    (said,) = [record for record in caplog.records if record.name == "autotuned.services.generation"]
    assert said.message == "the reply ends with the context"


async def test_a_context_that_the_request_sets_is_its_limit(house):
    end = finished(await house.ask(story(context_tokens=512)))
    assert end.finish_reason is FinishReason.LENGTH
    assert end.usage.prompt_tokens + end.usage.reply_tokens == 512
    assert context_of(house) == 512


async def test_a_limit_of_the_request_that_fits_is_just_a_limit(house):
    end = finished(await house.ask(story(max_reply_tokens=100)))
    assert (end.finish_reason, end.usage.reply_tokens) == (FinishReason.LENGTH, 100)
    assert context_of(house) <= FIRST_CONTEXT


async def test_a_reply_that_may_become_a_call_ends_with_the_context_and_says_why(house, caplog):
    request = story()
    request = replace(request, input=replace(request.input, tools=(Tool("ls", "lists files", "{}"),)))
    lease = await house.models.load("", ProfileName.FAST, None, None, None, lambda _: None)
    lease.release()
    with caplog.at_level(logging.INFO, "autotuned.services.generation"):
        end = finished(await house.ask(request))
    assert end.finish_reason is FinishReason.LENGTH
    assert end.usage.prompt_tokens + end.usage.reply_tokens == context_of(house)
    assert "it may become a call of a tool" in str(vars(caplog.records[-1]))


@pytest.mark.parametrize(
    "error",
    [
        Unsupported("This engine cannot."),
        EngineUnreachable("It broke."),
        WouldSwap("No room.", required_bytes=2, available_bytes=1, fitting_context_tokens=0),
    ],
)
async def test_where_the_rest_cannot_be_had_the_reply_ends_as_it_is(house, monkeypatch, error):
    request = story(max_reply_tokens=1500)
    lease = await house.models.load("", ProfileName.FAST, None, None, None, lambda _: None)
    lease.release()
    model, original = type(lease.loaded), type(lease.loaded).generate

    async def generate(self, request, conversation):
        if request.reply_so_far:
            raise error
        async with aclosing(original(self, request, conversation)) as events:
            async for event in events:
                yield event

    monkeypatch.setattr(model, "generate", generate)
    events = await house.ask(request)
    end = finished(events)
    assert end.finish_reason is FinishReason.LENGTH
    assert end.usage.prompt_tokens + end.usage.reply_tokens == lease.loaded.shape.context_tokens
    await house.inference.drain(0)
    assert (await record_of(house)).error_reason == ""


async def test_a_worker_that_dies_in_the_rest_fails_the_request(house, monkeypatch):
    lease = await house.models.load("", ProfileName.FAST, None, None, None, lambda _: None)
    lease.release()
    model, original = type(lease.loaded), type(lease.loaded).generate

    async def generate(self, request, conversation):
        async with aclosing(original(self, request, conversation)) as events:
            async for event in events:
                yield event
                if request.reply_so_far and isinstance(event, TextDelta):
                    raise EngineUnreachable("It died.")

    monkeypatch.setattr(model, "generate", generate)
    with pytest.raises(EngineUnreachable, match="It died"):
        await house.ask(story(max_reply_tokens=1500))
    await house.inference.drain(0)
    assert (await record_of(house)).error_reason == "ENGINE_UNREACHABLE"


async def test_a_cancel_in_the_growth_ends_it_and_leaves_the_model_for_the_next(house, monkeypatch):
    saving = asyncio.Event()
    original = house.prefixes.save

    async def save(loaded, within_seconds=None):
        saving.set()
        await original(loaded, within_seconds)

    monkeypatch.setattr(house.prefixes, "save", save)
    asking = asyncio.create_task(house.ask(story(max_reply_tokens=1500)))
    await saving.wait()
    asking.cancel()
    await asyncio.wait([asking])
    await house.inference.drain(0)
    record = await record_of(house)
    assert record.finish_reason == "cancelled"
    assert record.reply_tokens == FIRST_CONTEXT - record.prompt_tokens
    monkeypatch.undo()
    answered = await house.ask(chat("What is the capital of France?"))
    assert text_of(answered) == "The capital of France is Paris."


async def test_a_load_in_the_middle_of_a_reply_is_not_shown_as_a_queue(house):
    events = await house.ask(story(max_reply_tokens=1500))
    queued = [index for index, event in enumerate(events) if isinstance(event, Queued)]
    assert max(queued) < events.index(only(events, Started))
