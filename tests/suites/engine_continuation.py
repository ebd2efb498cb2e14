"""Replies that were cut, for example because the model had to grow, and go on where they were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core.chat import (
    Message,
    RawPrompt,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    ToolCallPart,
)
from autotuned.core.errors import Unsupported
from autotuned.core.generation import FinishReason
from tests.suites.engine_case import WEATHER, OneModel, answer, ask, assistant, finish_of, needs, text_of


class EngineContinuation(OneModel):
    """One part of ``EngineSuite``."""

    @pytest.mark.parametrize("cut_tokens", [1, 2, 9, 30, 31, 32, 75])
    async def test_a_cut_reply_goes_on_as_if_it_had_not_been_cut(self, case, model, cut_tokens):
        needs(case, "continues_replies")
        story = ask("Tell me a story.")
        whole = await answer(model, story)
        begun = await answer(model, replace(story, max_reply_tokens=cut_tokens))
        assert finish_of(begun).finish_reason is FinishReason.LENGTH
        rest = await answer(model, replace(story, reply_so_far=text_of(begun)))
        assert text_of(begun) + text_of(rest) == text_of(whole)
        assert finish_of(rest).finish_reason is FinishReason.STOP
        reply_tokens = finish_of(begun).usage.reply_tokens + finish_of(rest).usage.reply_tokens
        assert reply_tokens == finish_of(whole).usage.reply_tokens

    async def test_what_was_cut_is_prompt_and_is_not_computed_again(self, case, model):
        needs(case, "continues_replies", "counts_cached")
        story = ask("Tell me a story.", max_reply_tokens=30)
        begun = await answer(model, story)
        usage = finish_of(await answer(model, replace(story, reply_so_far=text_of(begun)))).usage
        assert usage.prompt_tokens == finish_of(begun).usage.prompt_tokens + 30
        assert usage.cached_tokens >= usage.prompt_tokens - 2
        assert usage.reply_tokens == 30

    async def test_a_reply_that_the_client_began_goes_on(self, case, model):
        needs(case, "continues_replies")
        request = ask("What is the capital of France?", assistant("The capital"))
        rest = await answer(model, replace(request, reply_so_far=" of France"))
        assert text_of(rest) == " is Paris."

    async def test_a_raw_prompt_goes_on(self, case, model):
        needs(case, "continues_replies")
        if not case.engine.capabilities().raw_prompt:
            pytest.skip("this engine takes no raw prompts")
        prompt = "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n"
        story = replace(ask("x"), input=RawPrompt(prompt))
        whole = await answer(model, story)
        begun = await answer(model, replace(story, max_reply_tokens=20))
        rest = await answer(model, replace(story, reply_so_far=text_of(begun)))
        assert text_of(begun) + text_of(rest) == text_of(whole)

    async def test_log_probabilities_are_those_of_the_new_tokens(self, case, model):
        needs(case, "continues_replies", "logprobs")
        request = ask("What is the capital of France?", top_logprobs_count=1, reply_so_far="The capital of")
        events = await answer(model, request)
        tokens = [token.token for event in events for token in getattr(event, "logprobs", ())]
        assert "".join(tokens) == text_of(events) == " France is Paris."

    async def test_a_message_that_calls_a_tool_does_not_go_on(self, model):
        call = Message(Role.ASSISTANT, (ToolCallPart("1", "get_weather", "{}"),))
        with pytest.raises(Unsupported, match="cannot go on"):
            await answer(model, ask("Tell me a story.", call, reply_so_far="Once"))

    @pytest.mark.parametrize(
        "changes",
        [
            {"response_format": ResponseFormat(ResponseFormatKind.JSON_OBJECT)},
            {"stop_sequences": ("nothing", "there is")},
            {"tools": (WEATHER,)},
        ],
        ids=["a response format", "half a stop sequence", "tools"],
    )
    async def test_a_reply_that_would_go_on_otherwise_is_refused(self, model, changes):
        request = ask("Tell me a story.", reply_so_far="Once upon a time there", **changes)
        with pytest.raises(Unsupported, match="cannot go on"):
            await answer(model, request)

    async def test_whole_stop_sequences_are_found_in_what_is_new(self, case, model):
        needs(case, "continues_replies")
        request = ask("Count from 1 to 9.", reply_so_far="1 2 3 4 5", stop_sequences=("8", "5 6 7"))
        with pytest.raises(Unsupported):
            await answer(model, request)
        request = replace(request, stop_sequences=("8",))
        assert text_of(await answer(model, request)).strip() == "6 7"
