"""What every engine must do, written against the ports alone.

A test file of an engine subclasses ``EngineSuite`` and gives it a fixture ``case``. The model is the
pocket model, which every engine can run: its answers to these questions are known.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

import pytest

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    ImagePart,
    Message,
    RawPrompt,
    ReasoningEffort,
    ReasoningPart,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceMode,
    ToolResultPart,
)
from autotuned.core.errors import (
    ContextTooLong,
    EngineUnreachable,
    FieldInvalid,
    ModelInvalid,
    Unsupported,
)
from autotuned.core.generation import (
    EngineEvent,
    EngineFinished,
    FinishReason,
    PrefillProgress,
    TextDelta,
    ToolCallDelta,
)
from autotuned.core.model import LoadPhase, LoadProgress, ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Engine, LoadedModel

IDLE_SECONDS = 10.0

WEATHER = Tool(
    "get_weather",
    "Get the weather in a city",
    '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
)
TIME = Tool(
    "get_time",
    "Get the local time in a city",
    '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
)
CITY_SCHEMA = '{"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCase:
    """An engine to examine.

    ``entry`` is the pocket model, ``shape`` one slot of 2,048 tokens in F16. ``active_requests``
    says how many requests the engine still works on, as the engine itself sees it.
    """

    engine: Engine
    entry: ModelEntry
    shape: LoadShape
    active_requests: Callable[[LoadedModel], Awaitable[int]]

    async def load(self, **changes: int) -> LoadedModel:
        """The model in the shape of this case, or one that differs."""
        return await self.engine.load(self.entry, replace(self.shape, **changes), lambda _: None)


def user(text: str) -> Message:
    """A message of the person who asks."""
    return Message(Role.USER, (TextPart(text),))


def assistant(text: str) -> Message:
    """An answer."""
    return Message(Role.ASSISTANT, (TextPart(text),))


def ask(*messages: str | Message, tools: tuple[Tool, ...] = (), **fields: object) -> GenerationRequest:
    """A greedy request with these messages."""
    conversation = tuple(user(message) if isinstance(message, str) else message for message in messages)
    choice = fields.pop("tool_choice", ToolChoice())
    chat = ChatInput(conversation, tools, choice)
    return GenerationRequest(model="pocket", input=chat, **{"sampling": Sampling(temperature=0.0), **fields})


async def answer(model: LoadedModel, request: GenerationRequest) -> list[EngineEvent]:
    """Every event of a generation."""
    async with aclosing(model.generate(request)) as events:
        return [event async for event in events]


def text_of(events: list[EngineEvent]) -> str:
    """The text of an answer."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def finish_of(events: list[EngineEvent]) -> EngineFinished:
    """The end, which comes once and last."""
    finishes = [event for event in events if isinstance(event, EngineFinished)]
    assert finishes == events[-1:]
    return finishes[0]


def progress_of(events: list[EngineEvent]) -> list[PrefillProgress]:
    """The progress of the prefill."""
    return [event for event in events if isinstance(event, PrefillProgress)]


async def until_idle(case: EngineCase, model: LoadedModel) -> None:
    """Waits until the engine works on nothing."""
    async with asyncio.timeout(IDLE_SECONDS):
        while await case.active_requests(model):  # noqa: ASYNC110 - the engine tells only when asked
            await asyncio.sleep(0.005)


class EngineSuite:
    """The conformance suite. A subclass provides the fixture ``case``."""

    @pytest.fixture
    async def model(self, case):
        model = await case.load()
        yield model
        await model.unload()

    # What it says of itself.

    def test_has_a_name_and_a_version(self, case):
        assert case.engine.name == case.engine.name.lower() != ""
        assert case.engine.version

    async def test_lists_the_model_with_its_facts(self, case):
        found = {entry.id: entry for entry in await case.engine.models()}[case.entry.id]
        assert found == case.entry
        assert found.engine == case.engine.name
        assert found.facts is not None
        assert found.problem == ""
        assert (found.facts.layers_count, found.facts.train_context_tokens) == (4, 8192)

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
        assert model.shape == case.shape

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

    async def test_usage_is_exact(self, model):
        request = ask("What is the capital of France?")
        events = await answer(model, request)
        usage = finish_of(events).usage
        assert usage.prompt_tokens == await model.count_tokens(request.input)
        assert usage.cached_tokens == 0
        # The end-of-turn token is a token of the reply.
        assert usage.reply_tokens == await model.count_tokens(text_of(events)) + 1

    async def test_times_are_the_engines_own(self, model):
        finish = finish_of(await answer(model, ask("What is TTFT?")))
        assert 0.0 < finish.prefill_seconds < IDLE_SECONDS
        assert 0.0 < finish.decode_seconds < IDLE_SECONDS

    async def test_progress_comes_first_and_is_in_order(self, case):
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

    async def test_a_repeated_prompt_is_cached(self, model):
        request = ask("Repeat: " + "la lo lu " * 20)
        first = finish_of(await answer(model, request)).usage
        events = await answer(model, request)
        again = finish_of(events).usage
        assert again.prompt_tokens == first.prompt_tokens
        assert again.cached_tokens == first.prompt_tokens - 1
        start = progress_of(events)[0]
        assert (start.cached_tokens, start.processed_tokens) == (again.cached_tokens, again.cached_tokens)

    async def test_a_shared_beginning_is_cached(self, model):
        opening = (user("My name is Ada."), assistant("Got it."))
        first = finish_of(await answer(model, ask(*opening, "What is my name?"))).usage
        second = finish_of(await answer(model, ask(*opening, "What is TTFT?"))).usage
        assert 0 < second.cached_tokens < first.prompt_tokens

    async def test_an_answer_that_was_begun_goes_on(self, model):
        events = await answer(model, ask("What is the capital of France?", assistant("The capital of")))
        assert text_of(events) == " France is Paris."

    async def test_parts_of_a_message_are_all_read(self, model):
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
        model = await case.load(context_tokens=256, batch_tokens=256, micro_batch_tokens=256)
        try:
            events = await answer(model, ask("Count from 1 to 79.", sampling=Sampling(temperature=0.0)))
        finally:
            await model.unload()
        finish = finish_of(events)
        assert finish.finish_reason is FinishReason.LENGTH
        assert finish.usage.prompt_tokens + finish.usage.reply_tokens <= 256

    async def test_a_prompt_that_does_not_fit_is_refused_with_the_exact_count(self, case, model):
        request = ask("hello " * 3000)
        with pytest.raises(ContextTooLong) as refusal:
            await answer(model, request)
        assert refusal.value.prompt_tokens == await model.count_tokens(request.input)
        assert refusal.value.context_tokens == case.shape.context_tokens
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"

    # Sampling.

    async def test_equal_seeds_give_equal_answers(self, model):
        def story(seed):
            sampling = Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
            return ask("Tell me a story.", sampling=sampling, max_reply_tokens=60)

        # The first answer fills the cache, so that the two that are compared start alike.
        await answer(model, story(7))
        texts = [text_of(await answer(model, story(seed))) for seed in (7, 7, 8, 7 + (1 << 40))]
        assert texts[0] == texts[1]
        assert texts[2] != texts[0]
        assert texts[3]

    async def test_a_bias_forbids_a_token(self, model):
        plain = text_of(await answer(model, ask("Repeat: red", max_reply_tokens=1)))
        events = await answer(model, ask("Repeat: red", max_reply_tokens=1, top_logprobs_count=5))
        ids = range(2048)
        bias = Sampling(temperature=0.0, logit_bias=tuple((token, -100.0) for token in ids if token != 300))
        biased = text_of(await answer(model, ask("Repeat: red", max_reply_tokens=1, sampling=bias)))
        assert plain == text_of(events) == "red"
        assert biased != plain

    async def test_log_probabilities_belong_to_their_text(self, model):
        events = await answer(model, ask("What is TTFT?", max_reply_tokens=5, top_logprobs_count=3))
        tokens = [token for event in events if isinstance(event, TextDelta) for token in event.logprobs]
        assert "".join(token.token for token in tokens) == text_of(events)
        assert len(tokens) == finish_of(events).usage.reply_tokens == 5
        for token in tokens:
            assert token.token_bytes.decode() == token.token
            assert token.logprob <= 0.0
            assert len(token.alternatives) == 3
            assert token.alternatives[0].token == token.token

    async def test_log_probabilities_may_come_without_alternatives(self, model):
        events = await answer(model, ask("What is TTFT?", max_reply_tokens=2, top_logprobs_count=0))
        tokens = [token for event in events if isinstance(event, TextDelta) for token in event.logprobs]
        assert [token.alternatives for token in tokens] == [(), ()]

    async def test_without_being_asked_there_are_no_log_probabilities(self, model):
        events = await answer(model, ask("What is TTFT?", max_reply_tokens=2))
        assert {event.logprobs for event in events if isinstance(event, TextDelta)} == {()}

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

    async def test_a_named_tool_is_called_whatever_was_asked(self, model):
        choice = ToolChoice(ToolChoiceMode.NAMED, "get_time")
        events = await answer(
            model, ask("What is the weather in Paris?", tools=(WEATHER, TIME), tool_choice=choice)
        )
        assert next(event.name for event in events if isinstance(event, ToolCallDelta)) == "get_time"

    async def test_no_tool_is_called_when_none_may_be(self, model):
        choice = ToolChoice(ToolChoiceMode.NONE)
        events = await answer(
            model,
            ask("What is the weather in Paris?", tools=(WEATHER,), tool_choice=choice, max_reply_tokens=50),
        )
        assert not [event for event in events if isinstance(event, ToolCallDelta)]

    async def test_tools_count_as_prompt(self, model):
        plain = await model.count_tokens(ask("Hello!").input)
        request = ask("Hello!", tools=(WEATHER,))
        usage = finish_of(await answer(model, request)).usage
        assert await model.count_tokens(request.input) == usage.prompt_tokens > plain

    async def test_a_tool_may_have_no_parameters(self, model):
        tool = Tool("get_weather", "Get the weather", "")
        events = await answer(model, ask("What is the weather in Paris?", tools=(tool,), max_reply_tokens=50))
        assert finish_of(events)

    @pytest.mark.parametrize("arguments", ['{"city": ', "[1", '{"a":1} {"b":2}', '"text"', "\ud800"])
    async def test_arguments_that_are_no_json_object_are_refused(self, model, arguments):
        call = Message(Role.ASSISTANT, (ToolCallPart("1", "get_weather", arguments),))
        result = Message(Role.TOOL, (ToolResultPart("1", "get_weather", "{}"),))
        with pytest.raises(FieldInvalid, match=r"messages\[1\]"):
            await answer(model, ask("What is the weather in Paris?", call, result, tools=(WEATHER,)))

    # Structure.

    async def test_a_json_object_is_one(self, model):
        wanted = ResponseFormat(ResponseFormatKind.JSON_OBJECT)
        events = await answer(model, ask("Hello!", response_format=wanted, max_reply_tokens=20))
        assert text_of(events).lstrip().startswith("{")

    async def test_a_schema_is_kept(self, model):
        wanted = ResponseFormat(ResponseFormatKind.JSON_SCHEMA, CITY_SCHEMA)
        events = await answer(model, ask("Where is the Eiffel tower?", response_format=wanted))
        assert json.loads(text_of(events))["city"] in {"Paris", "Rome"}

    @pytest.mark.parametrize(
        "schema",
        [
            '{"type": "banana"}',
            '{"$ref": "https://example.com/schema.json"}',
            '{"enum": []}',
            '["not", "an", "object"]',
            '{"type": "string"',
            '{"type": "string"}, "max_tokens": 1',
            "",
            '{"type": "string", "minLength": 1000000, "maxLength": 9000000}',
            '{"type":"object","properties":{"a":' * 5000 + "{}" + "}}" * 5000,
        ],
        ids=lambda schema: schema[:24],
    )
    async def test_a_schema_that_cannot_be_kept_is_refused(self, model, schema):
        wanted = ResponseFormat(ResponseFormatKind.JSON_SCHEMA, schema)
        with pytest.raises(FieldInvalid, match=r"response_format\.schema_json"):
            await answer(model, ask("Hello!", response_format=wanted, max_reply_tokens=5))
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"

    async def test_a_tool_schema_that_cannot_be_kept_is_refused(self, model):
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
        usage = finish_of(events).usage
        assert (
            usage.prompt_tokens
            == progress_of(events)[0].prompt_tokens
            == await model.count_tokens(prompt.prompt)
        )
        assert finish_of(events).finish_reason is FinishReason.STOP
        limited = await answer(model, replace(request, max_reply_tokens=2, top_logprobs_count=1))
        assert finish_of(limited).finish_reason is FinishReason.LENGTH
        assert finish_of(limited).usage.cached_tokens == usage.prompt_tokens - 1
        assert [len(event.logprobs) for event in limited if isinstance(event, TextDelta)] == [1, 1]

    async def test_a_raw_prompt_that_does_not_fit_is_refused(self, case, model):
        if not case.engine.capabilities().raw_prompt:
            pytest.skip("this engine takes no raw prompts")
        with pytest.raises(ContextTooLong):
            await answer(model, replace(ask("x"), input=RawPrompt("hello " * 3000)))

    async def test_a_suffix_needs_a_model_that_fills_in(self, case, model):
        if not case.engine.capabilities().raw_prompt:
            pytest.skip("this engine takes no raw prompts")
        with pytest.raises(Unsupported, match="middle"):
            await answer(model, replace(ask("x"), input=RawPrompt("def f(", "return 1")))

    # What cannot be done is refused, not ignored.

    async def test_images_are_refused_where_they_cannot_be_read(self, case, model):
        if case.engine.capabilities().images:
            pytest.skip("this engine reads images")
        picture = Message(Role.USER, (TextPart("What is this?"), ImagePart(b"\x89PNG", "image/png")))
        with pytest.raises(Unsupported, match="images"):
            await answer(model, ask(picture))
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

    # Counting.

    async def test_a_text_is_counted_as_it_is(self, model):
        assert await model.count_tokens("") == 0
        assert await model.count_tokens("hello") < await model.count_tokens("hello there, hello again")

    async def test_a_large_text_is_counted(self, model):
        assert await model.count_tokens("hello there. " * 20_000) > 20_000

    # Several at a time.

    async def test_two_slots_answer_two_requests_at_the_same_time(self, case):
        model = await case.load(slots_count=2)
        order: list[tuple[str, type]] = []

        async def run(name, text):
            async with aclosing(model.generate(ask(text, max_reply_tokens=150))) as events:
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
        async with aclosing(model.generate(ask("Count from 1 to 79."))) as events:
            seen = 0
            async for event in events:
                seen += isinstance(event, TextDelta)
                if seen == 3:
                    break
        await until_idle(case, model)
        assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"

    async def test_closing_in_prefill_stops_after_the_batch_and_keeps_what_was_done(self, case):
        model = await case.load(context_tokens=8192, batch_tokens=32, micro_batch_tokens=32)
        try:
            request = ask("Repeat: " + "la lo lu " * 1200, max_reply_tokens=1)
            total = await model.count_tokens(request.input)
            assert total > 3000
            async with aclosing(model.generate(request)) as events:
                async for event in events:
                    assert isinstance(event, PrefillProgress)
                    if event.processed_tokens >= 64:
                        break
            await until_idle(case, model)
            async with aclosing(model.generate(request)) as events:
                again = await anext(events)
            assert event.processed_tokens <= again.cached_tokens < total // 2
        finally:
            await model.unload()

    async def test_cancelling_the_task_stops_the_engine(self, case, model):
        started = asyncio.Event()

        async def run():
            async with aclosing(model.generate(ask("Count from 1 to 79."))) as events:
                async for _ in events:
                    started.set()

        task = asyncio.create_task(run())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_idle(case, model)

    async def test_a_generation_that_was_never_begun_costs_nothing(self, case, model):
        await model.generate(ask("Hello!")).aclose()
        assert await case.active_requests(model) == 0

    @pytest.mark.parametrize("phase", [LoadPhase.STARTING, LoadPhase.READING_WEIGHTS, LoadPhase.ALLOCATING])
    async def test_a_load_can_be_cancelled_in_every_phase(self, case, phase):
        reached = asyncio.Event()

        def notice(progress):
            if progress.phase is phase:
                reached.set()

        task = asyncio.create_task(case.engine.load(case.entry, case.shape, notice))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

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
        with pytest.raises(EngineUnreachable):
            await model.count_tokens("hello")

    async def test_unload_ends_what_runs(self, case):
        model = await case.load()
        async with aclosing(model.generate(ask("Count from 1 to 79."))) as events:
            await anext(events)
            await model.unload()
            with pytest.raises(EngineUnreachable):
                async for _ in events:
                    pass

    async def test_a_killed_process_fails_its_requests_and_says_why(self, case):
        model = await case.load(slots_count=2)
        if model.process_id == 0:
            pytest.skip("this engine has no process of its own")
        failures = []

        async def run():
            try:
                await answer(model, ask("Count from 1 to 79."))
            except EngineUnreachable as error:
                failures.append(error)

        async with aclosing(model.generate(ask("Count from 1 to 79."))) as events:
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
