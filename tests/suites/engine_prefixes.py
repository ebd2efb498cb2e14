"""Prompts that are computed ahead, and KV state that outlives the engine that computed it."""

from __future__ import annotations

import stat
from contextlib import aclosing
from dataclasses import replace

import pytest

from autotuned.core.chat import RawPrompt
from autotuned.core.errors import ContextTooLong
from autotuned.core.generation import PrefillProgress
from autotuned.core.plan import KvCacheType
from autotuned.core.prefix import WrittenPrefix
from tests.suites.engine_case import (
    TALK,
    EngineCase,
    OneModel,
    answer,
    ask,
    assistant,
    finish_of,
    needs,
    needs_a_limit,
    needs_knobs,
    text_of,
    until_idle,
    user,
)

LONG = "Repeat: " + "la lo lu " * 100
FILE = "state.bin"


async def prefill(model, request, conversation=TALK):
    """Every progress of a prefill."""
    async with aclosing(model.prefill(request, conversation)) as events:
        return [event async for event in events]


async def usage_of(model, request, conversation=TALK):
    """What a request counted."""
    return finish_of(await answer(model, request, conversation)).usage


class EnginePrefixes(OneModel):
    """One part of ``EngineSuite``. Where computing is slow, ``long_text`` may be shorter."""

    long_text = LONG

    # Prefill.

    async def test_a_prefill_leaves_the_prompt_in_the_cache_and_answers_nothing(self, case, model):
        needs(case, "prefills", "counts_cached", "counts_before_prefill")
        request = ask(self.long_text, max_reply_tokens=5)
        events = await prefill(model, request)
        assert {type(event) for event in events} == {PrefillProgress}
        total = events[-1].prompt_tokens
        if case.engine.capabilities().exact_token_counts:
            assert total == await model.count_tokens(request.input)
        assert (events[0].prompt_tokens, events[0].cached_tokens) == (total, 0)
        assert events[-1].processed_tokens == total
        usage = await usage_of(model, request)
        assert (usage.prompt_tokens, usage.cached_tokens) == (total, total - 1)

    async def test_a_prefill_changes_no_answer(self, case, model):
        needs(case, "prefills")
        request = ask("What is the capital of France?")
        await prefill(model, request)
        assert text_of(await answer(model, request)) == "The capital of France is Paris."

    async def test_a_raw_prompt_is_prefilled_too(self, case, model):
        needs(case, "prefills", "counts_cached", "counts_before_prefill")
        if not case.engine.capabilities().raw_prompt:
            pytest.skip("this engine takes no raw prompts")
        request = replace(ask("x", max_reply_tokens=1), input=RawPrompt(self.long_text))
        events = await prefill(model, request)
        assert (await usage_of(model, request)).cached_tokens == events[-1].processed_tokens - 1

    async def test_a_prefill_that_is_closed_keeps_what_was_done(self, case):
        needs(case, "prefills", "counts_before_prefill")
        needs_knobs(case, "batch_tokens")
        model = await case.load(context_tokens=8192, batch_tokens=32, micro_batch_tokens=32)
        try:
            request = ask("Repeat: " + "la lo lu " * 1200, max_reply_tokens=1)
            async with aclosing(model.prefill(request, TALK)) as events:
                async for event in events:
                    if event.processed_tokens >= 64:
                        break
            await until_idle(case, model)
            async with aclosing(model.generate(request, TALK)) as events:
                again = await anext(events)
            assert event.processed_tokens <= again.cached_tokens < again.prompt_tokens // 2
        finally:
            await model.unload()

    async def test_a_prefill_that_does_not_fit_is_refused(self, case, model):
        needs(case, "prefills")
        needs_a_limit(model)
        with pytest.raises(ContextTooLong):
            await prefill(model, ask("hello " * 3000))

    # The prompt cache in memory.

    @pytest.mark.parametrize("slots_count", [1, 2])
    async def test_a_prompt_cache_keeps_conversations_that_share_a_slot(self, case, slots_count):
        needs(case, "counts_cached")
        needs_knobs(case, "host_prompt_cache", *(["slots_count"] if slots_count > 1 else []))
        model = await case.load(slots_count=slots_count, host_prompt_cache_bytes=64 << 20)
        try:
            talks = {
                name: ask(f"{name} " + self.long_text, max_reply_tokens=2) for name in ("Ada", "Bob", "Cyd")
            }
            first = {name: await usage_of(model, talk, name) for name, talk in talks.items()}
            for name, talk in talks.items():
                usage = await usage_of(model, talk, name)
                assert usage.cached_tokens == usage.prompt_tokens - 1 == first[name].prompt_tokens - 1
        finally:
            await model.unload()

    async def test_without_a_prompt_cache_the_slot_forgets(self, case, model):
        needs(case, "counts_cached")
        needs_knobs(case, "host_prompt_cache")
        talks = {name: ask(f"{name} " + self.long_text, max_reply_tokens=2) for name in ("Ada", "Bob")}
        for name, talk in talks.items():
            await answer(model, talk, name)
        assert (await usage_of(model, talks["Ada"], "Ada")).cached_tokens < 10

    async def test_a_prefix_is_saved_beside_a_prompt_cache(self, case):
        model = await case.load(slots_count=case.slots(2), host_prompt_cache_bytes=64 << 20)
        try:
            for name in ("Ada", "Bob", "Cyd"):
                total = (
                    await usage_of(model, ask(f"{name} " + self.long_text, max_reply_tokens=1), name)
                ).prompt_tokens
            assert (await model.save_prefix("Cyd", FILE)).tokens_count == total
            assert (await model.save_prefix("Bob", FILE)).tokens_count > 0
            # Put away beside the slots, and fetched back.
            assert (await model.save_prefix("Ada", FILE)).tokens_count > total - 10
            assert (await model.save_prefix("nobody", FILE)) == WrittenPrefix(0, 0)
            # Whoever was saved or put away goes on.
            for name in ("Cyd", "Ada", "Bob"):
                usage = await usage_of(model, ask(f"{name} " + self.long_text), name)
                assert usage.cached_tokens == usage.prompt_tokens - 1
        finally:
            await model.unload()

    async def test_a_state_that_was_put_away_is_saved_with_its_reply(self, case):
        needs(case, "kv_prefixes")
        model = await case.load(host_prompt_cache_bytes=64 << 20)
        try:
            events = await answer(model, ask("What is a KV cache?"), "Ada")
            usage = finish_of(events).usage
            await answer(model, ask("Bob " + self.long_text), "Bob")
            assert (model.holds("Ada"), model.holds("Bob")) == (False, True)
            saved = await model.save_prefix("Ada", FILE)
            assert saved.tokens_count >= usage.prompt_tokens + usage.reply_tokens - 2
            assert (model.holds("Ada"), model.holds("Bob")) == (True, False)
        finally:
            await model.unload()

    async def test_a_slot_that_is_saved_is_not_used(self, case):
        needs(case, "kv_prefixes")
        needs_knobs(case, "slots_count")
        model = await case.load(slots_count=2)
        try:
            for name in ("Ada", "Bob"):
                await answer(model, ask(f"{name} " + self.long_text, max_reply_tokens=1), name)
            await model.save_prefix("Ada", FILE)
            await answer(
                model, ask("Cyd " + self.long_text, max_reply_tokens=1), "Cyd"
            )  # takes the oldest slot
            assert (model.holds("Ada"), model.holds("Bob"), model.holds("Cyd")) == (False, True, True)
        finally:
            await model.unload()

    async def test_a_request_after_one_that_was_given_up_is_answered(self, case):
        needs_knobs(case, "batch_tokens")
        model = await case.load(
            context_tokens=8192,
            slots_count=case.slots(2),
            batch_tokens=32,
            micro_batch_tokens=32,
            host_prompt_cache_bytes=64 << 20,
        )
        try:
            for _ in range(3):
                async with aclosing(model.generate(ask("Repeat: " + "la lo lu " * 1000), "Ada")) as events:
                    await anext(events)
                question = ask("What is the capital of France?")
                assert text_of(await answer(model, question, "Ada")) == "The capital of France is Paris."
        finally:
            await model.unload()

    # Saved prefixes.

    @pytest.fixture(autouse=True)
    def _needs_prefixes(self, request, case):
        if "prefix" in request.node.name and not case.engine.capabilities().kv_prefixes:
            pytest.skip("this engine saves no prefixes")

    async def test_a_saved_prefix_spares_a_larger_load_the_prefill(self, case, model):
        question = ask(user(self.long_text), max_reply_tokens=3)
        first = await answer(model, question)
        written = await model.save_prefix(TALK, FILE)
        usage = finish_of(first).usage
        # The last token that was drawn is in the reply, but not yet in the cache.
        assert written.tokens_count == usage.prompt_tokens + usage.reply_tokens - 1
        assert written.bytes_count == (case.prefix_folder / FILE).stat().st_size
        await model.unload()
        larger = await case.load(context_tokens=4096)
        try:
            assert await larger.restore_prefix(TALK, FILE) == written.tokens_count
            next_turn = ask(
                user(self.long_text), assistant(text_of(first)), "What is TTFT?", max_reply_tokens=2
            )
            assert (await usage_of(larger, next_turn)).cached_tokens >= written.tokens_count - 2
        finally:
            await larger.unload()

    async def test_a_restored_prefix_gives_the_same_answer(self, case, model):
        talk = (user("My name is Ada."), assistant("Got it."), user("What is my name?"))
        await prefill(model, ask(*talk))
        await model.save_prefix(TALK, FILE)
        other = await case.load()
        try:
            assert await other.restore_prefix(TALK, FILE) > 0
            assert text_of(await answer(other, ask(*talk))) == "Your name is Ada."
        finally:
            await other.unload()

    async def test_a_prefix_file_is_for_the_owner_alone(self, case, model):
        await prefill(model, ask("Hello!"))
        await model.save_prefix(TALK, FILE)
        assert stat.filemode((case.prefix_folder / FILE).stat().st_mode) == "-rw-------"
        assert stat.filemode(case.prefix_folder.stat().st_mode) == "drwx------"

    async def test_a_conversation_that_is_not_there_saves_no_prefix(self, case, model):
        assert await model.save_prefix(TALK, FILE) == WrittenPrefix(0, 0)
        await prefill(model, ask("Hello!"), "one")
        await prefill(model, ask("What is TTFT?"), "other")
        assert await model.save_prefix("one", FILE) == WrittenPrefix(0, 0)
        assert not (case.prefix_folder / FILE).exists()
        assert (await model.save_prefix("other", FILE)).tokens_count > 0

    async def test_each_slot_saves_its_own_prefix(self, case):
        needs_knobs(case, "slots_count")
        model = await case.load(slots_count=2)
        try:
            one, other = ask(self.long_text, max_reply_tokens=1), ask("What is TTFT?", max_reply_tokens=1)
            sizes = [(await prefill(model, one, "one"))[-1], (await prefill(model, other, "other"))[-1]]
            saved = [await model.save_prefix("one", "1.bin"), await model.save_prefix("other", "2.bin")]
            assert [written.tokens_count for written in saved] == [size.prompt_tokens for size in sizes]
        finally:
            await model.unload()
        again = await case.load(slots_count=2)
        try:
            # The other way round, so that they come into other slots.
            assert await again.restore_prefix("other", "2.bin") == saved[1].tokens_count
            assert await again.restore_prefix("one", "1.bin") == saved[0].tokens_count
            for request, conversation, written in ((one, "one", saved[0]), (other, "other", saved[1])):
                usage = await usage_of(again, request, conversation)
                assert usage.cached_tokens == written.tokens_count - 1
        finally:
            await again.unload()

    @pytest.mark.parametrize("kept", [0, 3, 100, 3000, 0.5, -1])
    async def test_a_prefix_that_was_cut_short_is_refused(self, case, model, kept):
        await prefill(model, ask(self.long_text))
        await model.save_prefix(TALK, FILE)
        data = (case.prefix_folder / FILE).read_bytes()
        cut = int(len(data) * kept) if isinstance(kept, float) else kept
        (case.prefix_folder / FILE).write_bytes(data[:cut])
        assert await model.restore_prefix(TALK, FILE) == 0
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"

    async def test_what_is_no_prefix_is_refused(self, case, model):
        (case.prefix_folder / FILE).write_bytes(b"no state at all" * 1000)
        assert await model.restore_prefix(TALK, FILE) == 0
        assert await model.restore_prefix(TALK, "missing.bin") == 0
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"

    async def test_a_prefix_of_another_cache_type_is_refused(self, case, model):
        await prefill(model, ask(self.long_text))
        await model.save_prefix(TALK, FILE)
        other = await case.load(key_cache_type=KvCacheType.Q8_0, value_cache_type=KvCacheType.Q8_0)
        try:
            assert await other.restore_prefix(TALK, FILE) == 0
            assert (await usage_of(other, ask(self.long_text, max_reply_tokens=1))).cached_tokens == 0
        finally:
            await other.unload()

    async def test_a_prefix_of_another_model_is_refused(self, case: EngineCase, model):
        await prefill(model, ask(self.long_text))
        await model.save_prefix(TALK, FILE)
        other = await case.load_as_other()
        try:
            assert await other.restore_prefix(TALK, FILE) == 0
            assert text_of(await answer(other, ask("Hello!"))) == "Hello! How can I help you?"
        finally:
            await other.unload()

    async def test_a_prefix_that_is_larger_than_the_context_is_refused(self, case, model):
        await prefill(model, ask(LONG))
        await model.save_prefix(TALK, FILE)
        smaller = await case.load(context_tokens=256, batch_tokens=256, micro_batch_tokens=256)
        try:
            assert await smaller.restore_prefix(TALK, FILE) == 0
            assert text_of(await answer(smaller, ask("Hello!"))) == "Hello! How can I help you?"
        finally:
            await smaller.unload()
