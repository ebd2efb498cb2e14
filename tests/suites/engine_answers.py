"""What an engine answers to good and to bad requests."""

from __future__ import annotations

import pytest

from autotuned.core.chat import (
    Message,
    Role,
    Sampling,
    TextPart,
)
from autotuned.core.errors import (
    ContextTooLong,
)
from autotuned.core.generation import (
    FinishReason,
    TextDelta,
)
from tests.suites.engine_case import (
    IDLE_SECONDS,
    OneModel,
    answer,
    ask,
    assistant,
    finish_of,
    needs,
    needs_a_limit,
    needs_knobs,
    progress_of,
    text_of,
    user,
)


class EngineAnswers(OneModel):
    """One part of ``EngineSuite``."""

    # Answers.

    async def test_answers_a_question_in_pieces(self, model):
        events = await answer(model, ask("What is the capital of France?"))
        assert text_of(events) == "The capital of France is Paris."
        deltas = [event for event in events if isinstance(event, TextDelta)]
        assert len(deltas) > 3
        assert {delta.part_index for delta in deltas} == {0}
        assert finish_of(events).finish_reason is FinishReason.STOP

    async def test_remembers_what_was_said(self, model):
        talk = (user("My name is Ada."), assistant("Got it."), user("What is my name?"))
        assert text_of(await answer(model, ask(*talk))) == "Your name is Ada."

    async def test_follows_the_system_message(self, model):
        note = Message(
            Role.SYSTEM, (TextPart("Relevant notes from earlier conversations:\n- I live in Oslo."),)
        )
        assert text_of(await answer(model, ask(note, "Where do I live?"))) == "You live in Oslo."

    async def test_usage_is_exact(self, case, model):
        needs(case, "exact_token_counts")
        request = ask("What is the capital of France?")
        events = await answer(model, request)
        usage = finish_of(events).usage
        assert usage.prompt_tokens == await model.count_tokens(request.input)
        assert usage.cached_tokens == 0
        # The end-of-turn token is a token of the reply.
        assert usage.reply_tokens == await model.count_tokens(text_of(events)) + 1

    async def test_times_are_the_engines_own(self, case, model):
        if not case.tells_times:
            pytest.skip("the server does not tell how long it took")
        finish = finish_of(await answer(model, ask("What is TTFT?")))
        assert 0.0 < finish.prefill_seconds < IDLE_SECONDS
        assert 0.0 < finish.decode_seconds < IDLE_SECONDS

    async def test_progress_comes_first_and_is_in_order(self, case):
        needs(case, "counts_before_prefill")
        needs_knobs(case, "batch_tokens")
        model = await case.load(batch_tokens=32, micro_batch_tokens=32)
        try:
            events = await answer(model, ask("Repeat: " + "la " * 200, max_reply_tokens=3))
        finally:
            await model.unload()
        progress = progress_of(events)
        total = finish_of(events).usage.prompt_tokens
        assert events[: len(progress)] == progress
        assert {event.prompt_tokens for event in progress} == {total}
        assert {event.cached_tokens for event in progress} == {0}
        processed = [event.processed_tokens for event in progress]
        assert processed == sorted(processed)
        assert processed[0] == 0
        assert processed[-1] == total
        assert len(progress) > total // 32

    async def test_a_repeated_prompt_is_cached(self, case, model):
        needs(case, "counts_cached")
        request = ask("Repeat: " + "la lo lu " * 20)
        first = finish_of(await answer(model, request)).usage
        events = await answer(model, request)
        again = finish_of(events).usage
        assert again.prompt_tokens == first.prompt_tokens
        assert again.cached_tokens == first.prompt_tokens - 1
        needs(case, "counts_before_prefill")
        start = progress_of(events)[0]
        assert (start.cached_tokens, start.processed_tokens) == (again.cached_tokens, again.cached_tokens)

    async def test_a_shared_beginning_is_cached(self, case, model):
        needs(case, "counts_cached")
        opening = (user("My name is Ada."), assistant("Got it."))
        first = finish_of(await answer(model, ask(*opening, "What is my name?"))).usage
        second = finish_of(await answer(model, ask(*opening, "What is TTFT?"))).usage
        assert 0 < second.cached_tokens < first.prompt_tokens

    async def test_an_answer_that_was_begun_goes_on(self, model):
        events = await answer(model, ask("What is the capital of France?", assistant("The capital of")))
        assert text_of(events) == " France is Paris."

    async def test_parts_of_a_message_are_all_read(self, case, model):
        needs(case, "exact_token_counts")
        parts = Message(Role.USER, (TextPart("What is"), TextPart("the capital of France?")))
        whole = await model.count_tokens(ask("What isthe capital of France?").input)
        assert await model.count_tokens(ask(parts).input) >= whole - 2

    # Limits.

    async def test_a_reply_limit_ends_the_answer(self, model):
        events = await answer(model, ask("Count from 1 to 9.", max_reply_tokens=3))
        finish = finish_of(events)
        assert finish.finish_reason is FinishReason.LENGTH
        assert finish.usage.reply_tokens == 3
        assert text_of(events) == "1 2"

    async def test_stop_sequences_end_the_answer_and_are_not_in_it(self, model):
        events = await answer(model, ask("Count from 1 to 9.", stop_sequences=("5", "nothing")))
        assert text_of(events).strip() == "1 2 3 4"
        assert finish_of(events).finish_reason is FinishReason.STOP

    async def test_a_full_context_ends_the_answer(self, case):
        needs_knobs(case, "context_tokens")
        model = await case.load(context_tokens=256, batch_tokens=256, micro_batch_tokens=256)
        try:
            events = await answer(model, ask("Count from 1 to 79.", sampling=Sampling(temperature=0.0)))
        finally:
            await model.unload()
        finish = finish_of(events)
        assert finish.finish_reason is FinishReason.LENGTH
        assert finish.usage.prompt_tokens + finish.usage.reply_tokens <= 256

    async def test_a_prompt_that_does_not_fit_is_refused_with_the_exact_count(self, case, model):
        needs_a_limit(model)
        request = ask("hello " * 3000)
        with pytest.raises(ContextTooLong) as refusal:
            await answer(model, request)
        assert refusal.value.prompt_tokens >= case.shape.context_tokens
        if case.engine.capabilities().exact_token_counts:
            assert refusal.value.prompt_tokens == await model.count_tokens(request.input)
        assert refusal.value.context_tokens == case.shape.context_tokens
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"

    # Sampling.

    async def test_equal_seeds_give_equal_answers(self, case, model):
        honoured = case.engine.capabilities().sampling
        if "seed" not in honoured:
            pytest.skip("this engine takes no seed")

        def story(seed):
            options = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": seed}
            sampling = Sampling(**{name: value for name, value in options.items() if name in honoured})
            return ask("Tell me a story.", sampling=sampling, max_reply_tokens=60)

        # The first answer fills the cache, so that the two that are compared start alike.
        await answer(model, story(7))
        texts = [text_of(await answer(model, story(seed))) for seed in (7, 7, 8, 7 + (1 << 40))]
        assert texts[0] == texts[1]
        assert texts[2] != texts[0]
        assert texts[3]

    async def test_a_bias_forbids_a_token(self, case, model):
        if "logit_bias" not in case.engine.capabilities().sampling:
            pytest.skip("this engine has no bias for tokens")
        plain = text_of(await answer(model, ask("Repeat: red", max_reply_tokens=1)))
        asked = {"top_logprobs_count": 5} if case.engine.capabilities().logprobs else {}
        events = await answer(model, ask("Repeat: red", max_reply_tokens=1, **asked))
        ids = range(2048)
        bias = Sampling(temperature=0.0, logit_bias=tuple((token, -100.0) for token in ids if token != 300))
        biased = text_of(await answer(model, ask("Repeat: red", max_reply_tokens=1, sampling=bias)))
        assert plain == text_of(events) == "red"
        assert biased != plain

    async def test_log_probabilities_belong_to_their_text(self, case, model):
        needs(case, "logprobs")
        events = await answer(model, ask("What is TTFT?", max_reply_tokens=5, top_logprobs_count=3))
        tokens = [token for event in events if isinstance(event, TextDelta) for token in event.logprobs]
        assert "".join(token.token for token in tokens) == text_of(events)
        assert len(tokens) == finish_of(events).usage.reply_tokens == 5
        for token in tokens:
            assert token.token_bytes.decode() == token.token
            assert token.logprob <= 0.0
            assert len(token.alternatives) == 3
            assert token.alternatives[0].token == token.token

    async def test_log_probabilities_may_come_without_alternatives(self, case, model):
        needs(case, "logprobs")
        events = await answer(model, ask("What is TTFT?", max_reply_tokens=2, top_logprobs_count=0))
        tokens = [token for event in events if isinstance(event, TextDelta) for token in event.logprobs]
        assert [token.alternatives for token in tokens] == [(), ()]

    async def test_without_being_asked_there_are_no_log_probabilities(self, model):
        events = await answer(model, ask("What is TTFT?", max_reply_tokens=2))
        assert {event.logprobs for event in events if isinstance(event, TextDelta)} == {()}

    # Counting.

    async def test_a_text_is_counted_as_it_is(self, case, model):
        needs(case, "exact_token_counts")
        assert await model.count_tokens("") == 0
        assert await model.count_tokens("hello") < await model.count_tokens("hello there, hello again")

    async def test_a_large_text_is_counted(self, case, model):
        needs(case, "exact_token_counts")
        assert await model.count_tokens("hello there. " * 20_000) > 20_000
