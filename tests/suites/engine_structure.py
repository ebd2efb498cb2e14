"""Tools, schemas, raw prompts, and what an engine refuses instead of ignoring it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autotuned.core.chat import (
    ImagePart,
    Message,
    RawPrompt,
    ReasoningEffort,
    ReasoningPart,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceMode,
    ToolResultPart,
)
from autotuned.core.errors import (
    ContextTooLong,
    FieldInvalid,
    Unsupported,
)
from autotuned.core.generation import (
    FinishReason,
    TextDelta,
    ToolCallDelta,
)
from tests.suites.engine_case import (
    CITY_SCHEMA,
    TIME,
    WEATHER,
    OneModel,
    answer,
    ask,
    finish_of,
    needs,
    needs_a_limit,
    progress_of,
    text_of,
    user,
)


class EngineStructure(OneModel):
    """One part of ``EngineSuite``."""

    # Tools.

    async def test_calls_a_tool_and_uses_its_result(self, model):
        question = user("What is the weather in Paris?")
        events = await answer(model, ask(question, tools=(WEATHER, TIME)))
        deltas = [event for event in events if isinstance(event, ToolCallDelta)]
        assert finish_of(events).finish_reason is FinishReason.TOOL_CALLS
        assert deltas[0].name == "get_weather"
        assert deltas[0].id
        assert {(delta.id, delta.name) for delta in deltas[1:]} <= {("", "")}
        assert {delta.part_index for delta in deltas} == {0}
        arguments = "".join(delta.arguments_json_fragment for delta in deltas)
        assert json.loads(arguments) == {"city": "Paris"}

        call = Message(Role.ASSISTANT, (ToolCallPart(deltas[0].id, "get_weather", arguments),))
        found = '{"sky": "sunny", "celsius": 21}'
        result = Message(Role.TOOL, (ToolResultPart(deltas[0].id, "get_weather", found),))
        events = await answer(model, ask(question, call, result, tools=(WEATHER, TIME)))
        assert text_of(events) == "It is sunny and 21 degrees in Paris."
        assert finish_of(events).finish_reason is FinishReason.STOP

    async def test_a_named_tool_is_called_whatever_was_asked(self, case, model):
        needs(case, "tool_choice")
        choice = ToolChoice(ToolChoiceMode.NAMED, "get_time")
        events = await answer(
            model, ask("What is the weather in Paris?", tools=(WEATHER, TIME), tool_choice=choice)
        )
        assert next(event.name for event in events if isinstance(event, ToolCallDelta)) == "get_time"

    async def test_no_tool_is_called_when_none_may_be(self, case, model):
        needs(case, "tool_choice")
        choice = ToolChoice(ToolChoiceMode.NONE)
        events = await answer(
            model,
            ask("What is the weather in Paris?", tools=(WEATHER,), tool_choice=choice, max_reply_tokens=50),
        )
        assert not [event for event in events if isinstance(event, ToolCallDelta)]

    async def test_tools_count_as_prompt(self, case, model):
        needs(case, "exact_token_counts")
        plain = await model.count_tokens(ask("Hello!").input)
        request = ask("Hello!", tools=(WEATHER,))
        usage = finish_of(await answer(model, request)).usage
        assert await model.count_tokens(request.input) == usage.prompt_tokens > plain

    async def test_a_tool_may_have_no_parameters(self, model):
        tool = Tool("get_weather", "Get the weather", "")
        events = await answer(model, ask("What is the weather in Paris?", tools=(tool,), max_reply_tokens=50))
        assert finish_of(events)

    # Structure.

    async def test_a_json_object_is_one(self, case, model):
        needs(case, "json_schema")
        wanted = ResponseFormat(ResponseFormatKind.JSON_OBJECT)
        events = await answer(model, ask("Hello!", response_format=wanted, max_reply_tokens=20))
        assert text_of(events).lstrip().startswith("{")

    async def test_a_schema_is_kept(self, case, model):
        needs(case, "json_schema")
        wanted = ResponseFormat(ResponseFormatKind.JSON_SCHEMA, CITY_SCHEMA)
        events = await answer(model, ask("Where is the Eiffel tower?", response_format=wanted))
        assert json.loads(text_of(events))["city"] in {"Paris", "Rome"}

    @pytest.mark.parametrize(
        "schema",
        [
            '{"type": "banana"}',
            '{"$ref": "https://example.com/schema.json"}',
            '{"enum": []}',
            '{"type": "string", "minLength": 1000000, "maxLength": 9000000}',
        ],
        ids=lambda schema: schema[:24],
    )
    async def test_a_schema_that_cannot_be_kept_is_refused(self, case, model, schema):
        needs(case, "json_schema")
        wanted = ResponseFormat(ResponseFormatKind.JSON_SCHEMA, schema)
        with pytest.raises(FieldInvalid, match=r"response_format\.schema_json"):
            await answer(model, ask("Hello!", response_format=wanted, max_reply_tokens=5))
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"

    async def test_a_tool_schema_that_cannot_be_kept_is_refused(self, case, model):
        needs(case, "json_schema")
        tool = Tool("f", "", '{"type": "banana"}')
        with pytest.raises(FieldInvalid, match=r"chat\.tools"):
            await answer(model, ask("Hello!", tools=(tool,)))

    # Raw prompts.

    async def test_a_raw_prompt_meets_no_template(self, case, model):
        if not case.engine.capabilities().raw_prompt:
            pytest.skip("this engine takes no raw prompts")
        prompt = RawPrompt(
            "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
        )
        request = replace(ask("x"), input=prompt)
        events = await answer(model, request)
        assert text_of(events) == "The capital of France is Paris."
        usage, able = finish_of(events).usage, case.engine.capabilities()
        if able.counts_before_prefill:
            assert usage.prompt_tokens == progress_of(events)[0].prompt_tokens
        if able.exact_token_counts:
            assert usage.prompt_tokens == await model.count_tokens(prompt.prompt)
        assert finish_of(events).finish_reason is FinishReason.STOP
        asked = {"top_logprobs_count": 1} if able.logprobs else {}
        limited = await answer(model, replace(request, max_reply_tokens=2, **asked))
        assert finish_of(limited).finish_reason is FinishReason.LENGTH
        if able.counts_cached:
            assert finish_of(limited).usage.cached_tokens == usage.prompt_tokens - 1
        if able.logprobs:
            assert [len(event.logprobs) for event in limited if isinstance(event, TextDelta)] == [1, 1]

    async def test_a_raw_prompt_that_does_not_fit_is_refused(self, case, model):
        if not case.engine.capabilities().raw_prompt:
            pytest.skip("this engine takes no raw prompts")
        needs_a_limit(model)
        with pytest.raises(ContextTooLong):
            await answer(model, replace(ask("x"), input=RawPrompt("hello " * 3000)))

    async def test_a_suffix_needs_a_model_that_fills_in(self, case, model):
        if not case.engine.capabilities().raw_prompt:
            pytest.skip("this engine takes no raw prompts")
        with pytest.raises(Unsupported, match="middle"):
            await answer(model, replace(ask("x"), input=RawPrompt("def f(", "return 1")))

    # What cannot be done is refused, not ignored.

    async def test_images_are_refused_where_they_cannot_be_read(self, case, model):
        assert case.entry.facts is not None
        if case.engine.capabilities().images and "image" in case.entry.facts.modalities:
            pytest.skip("this engine reads images")
        picture = Message(Role.USER, (TextPart("What is this?"), ImagePart(b"\x89PNG", "image/png")))
        with pytest.raises(Unsupported, match="images"):
            await answer(model, ask(picture))
        needs(case, "exact_token_counts")
        with pytest.raises(Unsupported, match="images"):
            await model.count_tokens(ask(picture).input)

    async def test_text_that_is_no_unicode_is_refused(self, model):
        with pytest.raises(FieldInvalid):
            await answer(model, ask("a lone surrogate \ud800"))

    async def test_a_model_that_does_not_reason_may_be_told_how_much(self, model):
        for effort in ReasoningEffort:
            events = await answer(model, ask("What is the capital of France?", reasoning_effort=effort))
            assert text_of(events) == "The capital of France is Paris."

    async def test_what_was_thought_before_may_be_sent_back(self, model):
        thought = Message(
            Role.ASSISTANT, (ReasoningPart("They greet me."), TextPart("Hello! How can I help you?"))
        )
        events = await answer(model, ask("Hello!", thought, "What is the capital of France?"))
        assert text_of(events) == "The capital of France is Paris."
