"""Replies that go on from where they were cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core.chat import RawPrompt, ResponseFormat, ResponseFormatKind, ToolCallPart
from autotuned.core.errors import Unsupported
from autotuned.core.generation import FinishReason
from tests.suites.engine_case import WEATHER, OneModel, answer, ask, assistant, finish_of, text_of

STORY = "Tell me a story."


class EngineContinuation(OneModel):
    """One part of ``EngineSuite``."""

    @pytest.mark.parametrize("cut_tokens", [1, 20, 61, 100])
    async def test_a_reply_goes_on_as_if_it_had_never_been_cut(self, model, cut_tokens):
        whole = await answer(model, ask(STORY))
        begun = await answer(model, ask(STORY, max_reply_tokens=cut_tokens))
        assert finish_of(begun).finish_reason is FinishReason.LENGTH
        rest = await answer(model, ask(STORY, reply_so_far=text_of(begun)))
        assert text_of(begun) + text_of(rest) == text_of(whole)
        reply_tokens = finish_of(begun).usage.reply_tokens + finish_of(rest).usage.reply_tokens
        assert reply_tokens == finish_of(whole).usage.reply_tokens

    async def test_what_was_said_counts_as_prompt_and_is_still_in_the_cache(self, model):
        begun = await answer(model, ask(STORY, max_reply_tokens=60))
        rest = finish_of(await answer(model, ask(STORY, reply_so_far=text_of(begun)))).usage
        assert rest.prompt_tokens == finish_of(begun).usage.prompt_tokens + 60
        assert rest.prompt_tokens - rest.cached_tokens <= 2

    async def test_the_reply_to_a_raw_prompt_goes_on(self, case, model):
        if not case.engine.capabilities().raw_prompt:
            pytest.skip("this engine takes no raw prompts")
        request = replace(ask("x"), input=RawPrompt("Once upon a time"))
        whole = text_of(await answer(model, request))
        begun = text_of(await answer(model, replace(request, max_reply_tokens=40)))
        assert begun + text_of(await answer(model, replace(request, reply_so_far=begun))) == whole

    async def test_a_message_that_the_client_began_goes_on(self, model):
        whole = text_of(await answer(model, ask(STORY, assistant("Once upon a time"))))
        begun = text_of(await answer(model, ask(STORY, assistant("Once upon a time"), max_reply_tokens=30)))
        rest = await answer(model, ask(STORY, assistant("Once upon a time"), reply_so_far=begun))
        assert begun + text_of(rest) == whole

    async def test_what_would_lose_its_place_is_refused(self, case, model):
        call = replace(assistant(""), parts=(ToolCallPart("1", "get_weather", "{}"),))
        refused = [
            ask(STORY, tools=(WEATHER,), reply_so_far="Once"),
            ask(STORY, response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT), reply_so_far="{"),
            ask(STORY, call, reply_so_far="Once"),
        ]
        if case.engine.capabilities().raw_prompt:
            refused.append(replace(ask(STORY, reply_so_far="a"), input=RawPrompt("def f(", "return 1")))
        for request in refused:
            with pytest.raises(Unsupported, match="cannot go on"):
                await answer(model, request)
