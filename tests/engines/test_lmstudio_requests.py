"""What the LM Studio adapter sends, refuses and makes of answers that go wrong."""

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace

import pytest

from autotuned.core.chat import (
    ChatInput,
    ImagePart,
    Message,
    RawPrompt,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from autotuned.core.errors import ContextTooLong, EngineUnreachable, FieldInvalid, Unsupported
from autotuned.core.generation import FinishReason, PrefillProgress, ReasoningDelta, TextDelta, ToolCallDelta
from autotuned.engines.chat_events import ChatReader, EngineProblem, ProblemData
from autotuned.engines.lmstudio.body import MOST_TTL_SECONDS, Addressee, Call, generation_call, ttl_seconds
from autotuned.engines.lmstudio.events import SILENT_OVERFLOW, LmstudioReader, TextReader
from autotuned.engines.lmstudio.listing import Api
from autotuned.engines.lmstudio.refusals import refusal
from tests.engines.lmstudio_case import case_of, opened, shared_lmstudio, with_own_client
from tests.engines.processes import until
from tests.suites.engine_case import TALK, TIME, WEATHER, answer, ask, finish_of, text_of

TO = Addressee(instance_id="pocket", api=Api.V1, sees=False, thinks=False)
OLD = replace(TO, api=Api.V0)
PICTURE = Message(Role.USER, (TextPart("What is this?"), ImagePart(b"\x89PNG", "image/png")))


def body_of(request, to=TO):
    call = generation_call(request, to)
    return call.target, json.loads(call.body)


# What is sent.


def test_a_chat_goes_to_its_instance_with_its_options():
    sampling = Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        seed=(1 << 40) + 7,
        repeat_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias=((3, -100.0),),
    )
    request = ask(
        "Hello!", sampling=sampling, stop_sequences=("x",), max_reply_tokens=5, keep_alive_seconds=60.0
    )
    target, body = body_of(request)
    assert target == "/v1/chat/completions"
    assert body == {
        "model": "pocket",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "seed": 7,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logit_bias": {"3": -100.0},
        "stop": ["x"],
        "messages": [{"role": "user", "content": "Hello!"}],
    }


def test_an_old_server_gets_its_own_route_and_a_time_to_live():
    target, body = body_of(ask("Hello!", keep_alive_seconds=59.6), OLD)
    assert (target, body["ttl"], body["max_tokens"]) == ("/api/v0/chat/completions", 60, -1)
    assert "ttl" not in body_of(ask("Hello!", keep_alive_seconds=-1.0), OLD)[1]
    assert body_of(replace(ask("x"), input=RawPrompt("Once")), OLD)[0] == "/api/v0/completions"


@pytest.mark.parametrize(
    ("keep_alive", "ttl"), [(None, 0), (-1.0, 0), (0.0, 1), (0.2, 1), (1e9, MOST_TTL_SECONDS)]
)
def test_a_keep_alive_becomes_what_a_timer_can_hold(keep_alive, ttl):
    assert ttl_seconds(keep_alive) == ttl


def test_a_json_object_is_asked_for_as_a_schema():
    _, body = body_of(ask("Hello!", response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)))
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_a_named_tool_is_offered_alone():
    choice = ToolChoice(ToolChoiceMode.NAMED, "get_time")
    _, body = body_of(ask("Hello!", tools=(WEATHER, TIME), tool_choice=choice))
    assert [tool["function"]["name"] for tool in body["tools"]] == ["get_time"]
    assert body["tool_choice"] == "required"


def test_a_model_that_sees_gets_its_picture_as_data():
    _, body = body_of(ask(PICTURE), replace(TO, sees=True))
    url = body["messages"][0]["content"][1]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")


# What is refused instead of ignored.


@pytest.mark.parametrize(
    ("request_", "to", "words"),
    [
        (ask("x", sampling=Sampling(min_p=0.1)), TO, "min_p"),
        (ask("x", top_logprobs_count=0), TO, "log probabilities"),
        (ask("x", reply_so_far="Once"), TO, "cannot go on"),
        (ask("x", reasoning_effort=ReasoningEffort.NONE), replace(TO, thinks=True), "reasoning effort"),
        (ask(PICTURE), TO, "images"),
        (replace(ask("x"), input=RawPrompt("def f(", "return 1")), TO, "middle"),
        (replace(ask("x", reasoning_effort=ReasoningEffort.LOW), input=RawPrompt("x")), TO, "no reasoning"),
        (
            replace(
                ask("x", response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)), input=RawPrompt("x")
            ),
            TO,
            "response format",
        ),
        (
            replace(ask("x"), input=ChatInput(ask("x").input.messages, parallel_tool_calls=False)),
            TO,
            "several",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_lm_studio_would_ignore_is_refused(request_, to, words):
    with pytest.raises(Unsupported, match=words):
        generation_call(request_, to)


# What its errors mean.


@pytest.mark.parametrize(
    ("message", "code", "error", "words"),
    [
        ("Model does not support images. Please use a model that does.", 0, Unsupported, "images"),
        (
            "Error rendering prompt with jinja template: roles must alternate",
            0,
            FieldInvalid,
            "chat.messages",
        ),
        (
            '[{"path": [0, "function", "parameters", "type"], "message": "x"}]',
            400,
            FieldInvalid,
            "chat.tools",
        ),
        ("failed to parse grammar", 0, FieldInvalid, "response_format"),
        ("'max_tokens' must be a number", 400, FieldInvalid, "max_tokens"),
        ("Context size has been exceeded.", 0, ContextTooLong, "at least 512"),
    ],
)
def test_what_the_client_can_mend_says_so(message, code, error, words):
    call = Call("/v1/chat/completions", b'{"response_format":1}')
    found = refusal(ProblemData(message=message, code=code), call, model_id="pocket", context_tokens=512)
    assert isinstance(found, error)
    assert words in found.message


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("The model has crashed without additional information. (Exit code: 6)", 400),
        ("Model unloaded.", 400),
        ("No models loaded. Please load a model in the developer page.", 400),
        ("Error in predict stream", 0),
        ("", 500),
    ],
)
def test_what_the_client_cannot_mend_is_left_to_the_caller(message, code):
    problem = ProblemData(message=message, code=code)
    assert refusal(problem, Call("", b"{}"), model_id="pocket", context_tokens=512) is None


# What it streams.


def chunk(**fields):
    return json.dumps(fields).encode()


def delta(finish_reason=None, **content):
    return chunk(choices=[{"index": 0, "delta": content, "finish_reason": finish_reason}])


def read(*chunks, inner=None, tool_names=()):
    reader = LmstudioReader(
        inner or ChatReader(None, awaits_done=True), context_tokens=512, tool_names=tool_names
    )
    return [event for each in chunks for event in reader.feed(each)]


def test_thoughts_come_under_either_name():
    events = read(delta(reasoning="I "), delta(reasoning_content="think."), delta(content="Yes."))
    assert [type(event) for event in events] == [ReasoningDelta, ReasoningDelta, TextDelta]


def test_an_old_build_without_counts_ends_even_so():
    events = read(delta(content="Yes."), delta("stop"), b"[DONE]")
    assert finish_of(events).finish_reason is FinishReason.STOP
    assert finish_of(events).usage.prompt_tokens == 0


@pytest.mark.parametrize(
    "chunks",
    [
        [delta("stop"), chunk(choices=[], usage={"prompt_tokens": 0, "completion_tokens": 0})],
        [delta("stop"), chunk(choices=[], usage={"prompt_tokens": 700, "completion_tokens": 0})],
        [delta("stop"), b"[DONE]"],
        [b"[DONE]"],
    ],
)
def test_nothing_at_all_is_a_prompt_that_is_too_long(chunks):
    with pytest.raises(EngineProblem) as problem:
        read(*chunks)
    assert problem.value.problem.type == SILENT_OVERFLOW


def test_an_answer_without_text_is_no_overflow():
    usage = {"prompt_tokens": 20, "completion_tokens": 1}
    assert finish_of(read(delta("stop"), chunk(choices=[], usage=usage))).usage.reply_tokens == 1


def test_tools_are_called_by_the_names_that_the_client_gave_them():
    call = {"index": 0, "id": "1", "function": {"name": "get_the_weather", "arguments": ""}}
    events = read(delta(tool_calls=[call]), tool_names=("getTheWeather", "time"))
    assert [event.name for event in events if isinstance(event, ToolCallDelta)] == ["getTheWeather"]
    events = read(delta(tool_calls=[call]), tool_names=("getTheWeather", "get-the-weather"))
    assert [event.name for event in events] == ["get_the_weather"]


def test_a_raw_prompt_is_read_with_its_times():
    events = read(
        chunk(choices=[{"text": "Once", "finish_reason": None}]),
        chunk(
            choices=[{"text": "", "finish_reason": "length"}],
            usage={"prompt_tokens": 3, "completion_tokens": 1},
            stats={"time_to_first_token": 0.25, "generation_time": 0.5},
        ),
        b"[DONE]",
        inner=TextReader(),
    )
    finish = finish_of(events)
    assert (text_of(events), finish.finish_reason) == ("Once", FinishReason.LENGTH)
    assert (finish.prefill_seconds, finish.decode_seconds) == (0.25, 0.5)
    with pytest.raises(EngineProblem, match="broken"):
        read(chunk(error={"message": "broken"}), inner=TextReader())


# Over the wire.


@pytest.fixture(scope="module")
def shared():
    with shared_lmstudio(slots_count=1, silent_overflow=True) as running:
        yield running


@pytest.fixture
async def double(shared):
    async with with_own_client(shared) as own:
        yield own


@pytest.fixture
async def model(double):
    async with opened(double, silence_timeout_seconds=2.0) as engine:
        yield await (await case_of(double, engine)).load()


async def test_a_silent_overflow_is_one(model):
    with pytest.raises(ContextTooLong) as refusal_:
        await answer(model, ask("hello " * 3000))
    assert refusal_.value.context_tokens == 2048
    assert refusal_.value.prompt_tokens >= 2048


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("hang_before_headers", "fell silent"),
        ("hang_mid_stream", "fell silent"),
        ("close_mid_stream", "broke off"),
        ("error_mid_stream", "Error in predict stream"),
        ("text_error_mid_stream", "Error in predict stream"),
    ],
)
async def test_an_answer_that_goes_wrong_is_unreachable_and_the_next_is_fine(double, model, fault, words):
    await double.arm(fault)
    with pytest.raises(EngineUnreachable, match=words) as failure:
        await answer(model, ask("What is the capital of France?"))
    assert failure.value.served
    await double.release()
    assert not model.is_gone
    assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"


async def test_a_prefill_counts_at_its_end_and_answers_nothing(double, model):
    async with aclosing(model.prefill(ask("What is a KV cache?", max_reply_tokens=50), TALK)) as events:
        [progress] = [event async for event in events]
    assert isinstance(progress, PrefillProgress)
    assert progress.prompt_tokens == progress.processed_tokens > 5
    last = (await double.state())["requests"][-1]
    assert last["body"]["max_tokens"] == 1


async def test_what_it_cannot_do_is_refused(model):
    with pytest.raises(Unsupported, match="counts no tokens"):
        await model.count_tokens(ask("Hello!").input)
    with pytest.raises(Unsupported, match="KV cache"):
        await model.save_prefix(TALK, "state.bin")
    with pytest.raises(Unsupported, match="KV cache"):
        await model.restore_prefix(TALK, "state.bin")
    assert not model.holds(TALK)


async def test_tools_that_lm_studio_refuses_name_the_field(model):
    tool = Tool("f", "", '{"type": "object"}')
    with pytest.raises(FieldInvalid, match=r"chat\.tools"):
        await answer(model, ask("Hello!", tools=(tool,)))


async def test_closing_stops_lm_studio(double, model):
    async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
        await anext(events)

    async def is_idle():
        return (await double.state())["active_requests"] == 0

    await until(is_idle, "nothing runs any more")


async def test_two_requests_run_one_after_the_other_or_together(model):
    texts = await asyncio.gather(*(answer(model, ask("What is the capital of France?")) for _ in range(3)))
    assert {text_of(events) for events in texts} == {"The capital of France is Paris."}
