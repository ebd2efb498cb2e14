"""What is sent to Ollama, and what is refused before it is sent."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autotuned.core.chat import (
    ChatInput,
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
from autotuned.core.errors import FieldInvalid, Unsupported
from autotuned.core.model import ModelFacts
from autotuned.engines.ollama.body import (
    Incarnation,
    generation_call,
    load_call,
    prefill_call,
    unload_call,
)
from autotuned.engines.ollama.facts import Known
from autotuned.engines.ollama.versions import features_of
from tests.suites.engine_case import WEATHER, ask, assistant, user


def facts(**changes):
    values = {
        "digest": "d",
        "architecture": "llama",
        "name": "m",
        "quantization": "Q8_0",
        "parameters_count": 1,
        "weights_bytes": 1,
        "weights_bytes_by_type": (),
        "layers_count": 0,
        "embedding_length": 1,
        "vocabulary_size": 1,
        "layer_groups": (),
        "train_context_tokens": 8192,
        "chat_template": "",
        **changes,
    }
    return ModelFacts(**values)


def incarnation(*, version="0.33.3", model=None, **known):
    found = Known(name="m:latest", runner_key="m", size_bytes=1, facts=facts(**(model or {})), **known)
    return Incarnation(model=found, context_tokens=4096, features=features_of(version))


def body_of(request, **about):
    call = generation_call(request, incarnation(**about))
    return json.loads(call.body)


REQUESTS = {
    "plain": ask("Hello!"),
    "silent sampling": ask("Hello!", sampling=Sampling()),
    "limited": ask("Hello!", max_reply_tokens=3, stop_sequences=("x",)),
    "tools": ask("Hello!", tools=(WEATHER,)),
    "json": ask("Hello!", response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)),
    "logprobs": ask("Hello!", top_logprobs_count=2),
    "raw": replace(ask("x"), input=RawPrompt("Hello")),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_every_request_has_the_same_load_options_as_the_load(request_):
    load = json.loads(load_call(incarnation()).body)
    body = body_of(request_)
    runner = {"num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"}
    assert load["options"] == {"num_ctx": 4096}
    assert {name: body["options"][name] for name in runner & set(body["options"])} == load["options"]
    for name in ("model", "keep_alive", "truncate", "shift"):
        assert body[name] == load[name]
    assert body["keep_alive"] == -1
    assert body["truncate"] is False
    assert body["shift"] is False
    assert body["stream"] is True


def test_a_model_leaves_with_a_number_too():
    assert json.loads(unload_call("m:latest").body) == {"model": "m:latest", "messages": [], "keep_alive": 0}


def test_only_what_was_said_is_sent_of_the_sampling():
    sampling = Sampling(temperature=0.5, top_k=7, seed=(1 << 32) + 5, repeat_penalty=1.1)
    options = body_of(ask("Hello!", sampling=sampling))["options"]
    assert options == {
        "num_ctx": 4096,
        "temperature": 0.5,
        "top_k": 7,
        "repeat_penalty": 1.1,
        "seed": 6,
        "num_predict": -1,
    }


def test_a_prefill_draws_one_token_and_never_none():
    body = json.loads(prefill_call(ask("Hello!"), incarnation()).body)
    assert body["options"]["num_predict"] == 1
    assert body_of(ask("Hello!", max_reply_tokens=0))["options"]["num_predict"] == 1


def test_stop_sequences_stand_beside_those_of_the_model():
    known = {"stop_sequences": ("<|im_end|>",)}
    assert body_of(ask("x", stop_sequences=("a",)), **known)["options"]["stop"] == ["a", "<|im_end|>"]
    assert "stop" not in body_of(ask("x"), **known)["options"]


def test_a_conversation_is_said_in_ollamas_own_way():
    arguments = '{"city":  "Paris", "b": 1, "a": 2}'
    talk = (
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        user("What is the weather?"),
        Message(
            Role.ASSISTANT,
            (ReasoningPart("They ask."), TextPart("I look."), ToolCallPart("1", "get_weather", arguments)),
        ),
        Message(Role.TOOL, (ToolResultPart("1", "", "sunny"), ToolResultPart("2", "other", "wet"))),
        assistant("It is sunny."),
        Message(Role.USER, (TextPart("And"), TextPart("tomorrow?"))),
    )
    call = generation_call(ask(*talk, tools=(WEATHER,)), incarnation())
    body = json.loads(call.body)
    assert call.target == "/api/chat"
    assert [message["role"] for message in body["messages"]] == [
        *("system", "user", "assistant", "tool", "tool", "assistant", "user")
    ]
    called = body["messages"][2]
    assert (called["thinking"], called["content"]) == ("They ask.", "I look.")
    assert called["tool_calls"][0]["function"]["arguments"] == {"city": "Paris", "b": 1, "a": 2}
    assert arguments.encode() in call.body
    assert WEATHER.parameters_json.encode() in call.body
    assert body["messages"][3] == {
        "role": "tool",
        "content": "sunny",
        "tool_name": "get_weather",
        "tool_call_id": "1",
    }
    assert body["messages"][4]["tool_name"] == "other"
    assert body["messages"][-1]["content"] == "And\ntomorrow?"


def test_calls_and_tools_without_arguments_have_an_empty_object():
    call = Message(Role.ASSISTANT, (ToolCallPart("1", "f", ""),))
    body = body_of(ask("x", call, "y", tools=(Tool("f", "", ""),)))
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == {}
    assert body["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {}}


def test_without_a_choice_no_tool_is_offered():
    request = ask("x", tools=(WEATHER,), tool_choice=ToolChoice(ToolChoiceMode.NONE))
    assert "tools" not in body_of(request)


@pytest.mark.parametrize("mode", [ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED])
def test_a_choice_that_cannot_be_kept_is_refused(mode):
    with pytest.raises(Unsupported, match="tool choice"):
        body_of(ask("x", tools=(WEATHER,), tool_choice=ToolChoice(mode, "get_weather")))


def test_a_schema_goes_in_byte_for_byte():
    schema = '{"type":"object",  "properties": {"b": {}, "a": {}}}'
    wanted = ResponseFormat(ResponseFormatKind.JSON_SCHEMA, schema)
    call = generation_call(ask("x", response_format=wanted), incarnation())
    assert b'"format":' + schema.encode() in call.body
    assert body_of(REQUESTS["json"])["format"] == "json"
    assert "format" not in body_of(ask("x"))


@pytest.mark.parametrize(
    ("effort", "about", "think"),
    [
        (ReasoningEffort.NONE, {}, False),
        (ReasoningEffort.LOW, {}, "low"),
        (ReasoningEffort.HIGH, {"version": "0.13.0"}, True),
        (ReasoningEffort.HIGH, {"version": "0.13.0", "model": {"architecture": "gptoss"}}, "high"),
    ],
)
def test_a_model_that_thinks_is_told_how_much(effort, about, think):
    model = {"thinks": True, **about.get("model", {})}
    assert body_of(ask("x", reasoning_effort=effort), **{**about, "model": model})["think"] == think


def test_nobody_else_is_told_to_think():
    assert "think" not in body_of(ask("x", reasoning_effort=ReasoningEffort.HIGH))
    assert "think" not in body_of(ask("x"), model={"thinks": True})
    assert body_of(REQUESTS["raw"], model={"thinks": True})["think"] is False


def test_images_are_for_models_that_see():
    picture = Message(Role.USER, (TextPart("What is this?"), ImagePart(b"\x89PNG", "image/png")))
    body = body_of(ask(picture), model={"modalities": ("text", "image")})
    assert body["messages"][0] == {"role": "user", "content": "What is this?", "images": ["iVBORw=="]}
    with pytest.raises(Unsupported, match='"m:latest" does not read images'):
        body_of(ask(picture))


def test_a_raw_prompt_meets_no_template():
    call = generation_call(REQUESTS["raw"], incarnation())
    body = json.loads(call.body)
    assert call.target == "/api/generate"
    assert (body["prompt"], body["raw"]) == ("Hello", True)
    assert "suffix" not in body


def test_a_suffix_is_for_models_that_fill_in():
    request = replace(ask("x"), input=RawPrompt("def f(", "return 1"))
    body = body_of(request, fills_in=True)
    assert (body["prompt"], body["suffix"]) == ("def f(", "return 1")
    assert "raw" not in body
    with pytest.raises(Unsupported, match="middle"):
        body_of(request)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (replace(ask("x"), input=RawPrompt("Hi"), reasoning_effort=ReasoningEffort.LOW), "reasoning effort"),
        (ask("x", tools=(WEATHER,), top_logprobs_count=1), "together with tools"),
        (ask("x", reply_so_far="Once"), "cannot go on"),
        (ask("x", sampling=Sampling(logit_bias=((1, 1.0),))), "logit bias"),
    ],
)
def test_what_ollama_cannot_do_is_refused(request_, words):
    with pytest.raises(Unsupported, match=words):
        body_of(request_)


def test_what_an_old_version_cannot_do_is_refused():
    with pytest.raises(Unsupported, match="update it"):
        body_of(REQUESTS["logprobs"], version="0.12.10")


@pytest.mark.parametrize(
    ("prompt", "field"), [(RawPrompt(""), "raw.prompt"), (ChatInput(()), "chat.messages")]
)
def test_what_ollama_would_take_for_a_load_is_refused(prompt, field):
    with pytest.raises(FieldInvalid, match=field):
        body_of(replace(ask("x"), input=prompt))


@pytest.mark.parametrize(
    ("version", "new_enough", "logprobs", "cached"),
    [
        ("0.12.5", False, False, False),
        ("0.12.6", True, False, False),
        ("0.12.11-rc0", True, True, False),
        ("0.33.2", True, True, False),
        ("0.33.3", True, True, True),
        ("v1.0.0", True, True, True),
        ("0.0.0", True, True, False),
        ("", True, False, False),
    ],
)
def test_what_a_version_can_do(version, new_enough, logprobs, cached):
    features = features_of(version)
    assert (features.is_new_enough, features.logprobs, features.cached_counts) == (
        new_enough,
        logprobs,
        cached,
    )
