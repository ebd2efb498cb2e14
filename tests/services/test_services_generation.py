"""One request's life with the real engine: what it waits for, what is learned, what is recorded."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from autotuned.core.chat import ProfileName, RawPrompt, Tool
from autotuned.core.errors import ContextTooLong, EngineUnreachable
from autotuned.core.generation import FinishReason
from autotuned.core.plan import PlanAction
from autotuned.policy.profiles import PROFILES
from tests.services.real_house import chat, finished, real_house, started, text_of

FRANCE = chat("What is the capital of France?")
PARIS = "The capital of France is Paris."
LONG = chat("la lo lu " * 700, max_reply_tokens=1)


@pytest.fixture
async def house():
    async with real_house() as made:
        yield made


async def load(house, context_tokens=None):
    return await house.models.load("", ProfileName.FAST, context_tokens, None, None, lambda _: None)


async def records_of(house):
    await house.inference.drain(0)
    return await house.request_log.recent(10)


async def cancelled(task):
    task.cancel()
    await asyncio.wait([task])


async def test_waiting_for_another_is_queueing_and_waiting_for_the_load_is_loading(house, monkeypatch):
    held = await load(house, 512)
    (actor,) = house.models.running()
    original = house.engine.load

    async def slow_load(*arguments):
        house.clock.ahead_seconds += 70.0
        return await original(*arguments)

    monkeypatch.setattr(house.engine, "load", slow_load)
    asking = asyncio.create_task(house.ask(LONG))
    while not actor.waiting_count:  # noqa: ASYNC110 - it asks within a few steps
        await asyncio.sleep(0)
    house.clock.ahead_seconds += 1000.0
    held.release()
    timings = finished(await asking).timings
    assert 1000.0 <= timings.queue_seconds < 1060.0
    assert 70.0 <= timings.load_seconds < 130.0
    (record,) = await records_of(house)
    assert (record.queue_seconds, record.load_seconds) == (timings.queue_seconds, timings.load_seconds)


async def test_what_the_engine_counted_is_learned(house):
    (entry,) = await house.engine.models()
    digest = entry.facts.digest
    end = finished(await house.ask(chat("la lo lu " * 300)))
    learned = house.learning.of(digest)
    assert learned.prefill_tokens_per_second > 0
    assert learned.tokens_per_byte > 0
    room_tokens = PROFILES[ProfileName.BALANCED].reply_tokens  # a short reply needed it, too
    assert learned.usual_context_tokens == end.usage.prompt_tokens + room_tokens
    assert [load.shape.context_tokens for load in learned.loads]


async def test_what_was_learned_serves_the_next_daemon(tmp_path):
    async with real_house(tmp_path) as house:
        (entry,) = await house.engine.models()
        await house.ask(chat("la lo lu " * 300))
        known = house.learning.of(entry.facts.digest)
    async with real_house(tmp_path) as house:
        assert house.learning.of(entry.facts.digest) == known


async def test_an_agents_loop_is_sized_once_for_all_of_its_turns(house):
    request = replace(FRANCE, profile=ProfileName.BALANCED, client="editor")
    request = replace(request, input=replace(request.input, tools=(Tool("ls", "lists files", "{}"),)))
    plan = started(await house.ask(request)).plan
    assert plan.shape.context_tokens >= 20 * 300
    assert started(await house.ask(request)).plan.action is PlanAction.REUSE


async def test_a_context_that_the_request_sets_is_what_the_advice_is_about(house):
    with pytest.raises(
        ContextTooLong, match=r"leave context_tokens out or raise it above [\d,]+, up to 8,192"
    ):
        await house.ask(replace(LONG, context_tokens=512))
    (record,) = await records_of(house)
    assert record.error_reason == "CONTEXT_TOO_LONG"


async def test_a_worker_that_is_found_dead_while_its_state_is_read_back_costs_another_one(house, monkeypatch):
    original, deaths = house.prefixes.before_request, []

    async def before(loaded, entry, chain):
        if not deaths:
            deaths.append(loaded)
            await loaded.unload()
            error = EngineUnreachable("It is gone.")
            error.served = False
            raise error
        await original(loaded, entry, chain)

    monkeypatch.setattr(house.prefixes, "before_request", before)
    assert text_of(await house.ask(FRANCE)) == PARIS
    assert [record.error_reason for record in await records_of(house)] == [""]


async def test_a_worker_that_dies_again_and_again_fails_the_request(house, monkeypatch):
    async def before(loaded, entry, chain):
        error = EngineUnreachable("It is gone.")
        error.served = False
        raise error

    monkeypatch.setattr(house.prefixes, "before_request", before)
    with pytest.raises(EngineUnreachable):
        await house.ask(FRANCE)
    assert [record.error_reason for record in await records_of(house)] == ["ENGINE_UNREACHABLE"]


@pytest.mark.parametrize("ask", ["ask", "prewarm"])
async def test_a_cancel_while_a_state_is_read_back_frees_the_model(house, monkeypatch, ask):
    reading = asyncio.Event()

    async def before(loaded, entry, chain):
        reading.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(house.prefixes, "before_request", before)
    work = house.ask(FRANCE) if ask == "ask" else house.inference.prewarm(FRANCE)
    asking = asyncio.create_task(work)
    await reading.wait()
    await cancelled(asking)
    monkeypatch.undo()
    assert text_of(await house.ask(FRANCE)) == PARIS
    (actor,) = house.models.running()
    assert actor.leases_count == 0
    reasons = [record.finish_reason for record in await records_of(house)]
    assert reasons == (["stop", "cancelled"] if ask == "ask" else ["stop"])


async def test_a_conversation_goes_on_in_the_cache_and_after_an_unload_from_the_disk(house):
    first = await house.ask(LONG)
    assert started(first).cached_tokens == 0
    again = await house.ask(LONG)
    assert started(again).cached_tokens == started(first).prompt_tokens - 1
    await house.models.unload("pocket")
    restored = await house.ask(LONG)
    assert started(restored).cached_tokens >= started(first).prompt_tokens - 8
    assert started(restored).plan.action is PlanAction.LOAD


async def test_one_that_is_to_be_discarded_leaves_nothing_on_disk(house):
    await house.ask(replace(LONG, discard=True))
    await house.models.unload("pocket")
    await house.prefixes.close()
    assert house.prefixes.saved_count == 0
    await house.ask(LONG)
    await house.models.unload("pocket")
    await house.prefixes.close()  # what is saved is committed behind
    assert house.prefixes.saved_count == 1


async def test_an_engine_without_prefixes_is_asked_for_none(house, monkeypatch):
    capabilities = replace(house.engine.capabilities(), kv_prefixes=False)
    monkeypatch.setattr(house.engine, "capabilities", lambda: capabilities)
    lease = await load(house)
    lease.release()
    conversations = []
    model, original = type(lease.loaded), type(lease.loaded).generate

    async def generate(self, request, conversation):
        conversations.append(conversation)
        async with aclosing(original(self, request, conversation)) as events:
            async for event in events:
                yield event

    monkeypatch.setattr(model, "generate", generate)
    await house.ask(LONG)
    await house.models.unload("pocket")
    assert set(conversations) == {""}
    assert house.prefixes.saved_count == 0


async def test_requests_that_come_together_each_end_in_one_record(house):
    asked = [house.ask(FRANCE), house.ask(LONG), house.ask(replace(FRANCE, input=RawPrompt("Once")))]
    tasks = [asyncio.create_task(each) for each in (*asked, house.ask(FRANCE))]
    while house.inference.queued_requests_count < 3:  # noqa: ASYNC110 - each asks within a few steps
        await asyncio.sleep(0)
    await cancelled(tasks.pop())
    ends = [finished(events).finish_reason for events in await asyncio.gather(*tasks)]
    assert ends == [FinishReason.STOP, FinishReason.LENGTH, FinishReason.STOP]
    records = await records_of(house)
    assert sorted(record.finish_reason for record in records) == ["cancelled", "length", "stop", "stop"]
    assert len({record.request_id for record in records}) == 4
