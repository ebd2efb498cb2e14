"""What is written for each program, and what is refused because it would be passed over."""

import json
from dataclasses import fields

import pytest

from autotuned.core.chat import (
    ImagePart,
    Message,
    RawPrompt,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    Sampling,
    TextPart,
    ToolChoice,
    ToolChoiceMode,
)
from autotuned.core.engine import ALL_SAMPLING
from autotuned.core.errors import Unsupported
from autotuned.engines.openai.body import count_call, generation_call
from autotuned.engines.openai.kinds import TRAITS, Ability, ServerKind, capabilities_of
from tests.suites.engine_case import CITY_SCHEMA, TIME, WEATHER, ask

ALL = Sampling(
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    min_p=0.1,
    seed=(1 << 40) + 7,
    repeat_penalty=1.1,
    presence_penalty=0.2,
    frequency_penalty=0.3,
    logit_bias=((5, -100.0),),
)
KINDS = list(ServerKind)


def ability(kind, **changes):
    return Ability(**{"kind": kind, "images": TRAITS[kind].images, "slots_count": 4, **changes})


def body_of(kind, request, **changes):
    return json.loads(generation_call(request, "m", ability(kind, **changes)).body)


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_that_a_program_honours_is_written(kind):
    honoured = TRAITS[kind].sampling
    asked = Sampling(
        **{field.name: getattr(ALL, field.name) for field in fields(ALL) if field.name in honoured}
    )
    body = body_of(kind, ask("Hello!", sampling=asked))
    names = {"repeat_penalty" if name == "repetition_penalty" else name for name in body}
    assert names & ALL_SAMPLING == honoured
    llamacpp = kind is ServerKind.LLAMACPP
    assert body["logit_bias"] == ([[5, -100.0]] if llamacpp else {"5": -100.0})
    assert (body["seed"] < 1 << 32) == llamacpp
    assert (body["model"], body["stream"], body["stream_options"]) == ("m", True, {"include_usage": True})


@pytest.mark.parametrize("name", ["top_k", "min_p", "repeat_penalty"])
def test_what_an_unknown_program_may_pass_over_is_refused(name):
    request = ask("Hello!", sampling=Sampling(**{name: getattr(ALL, name)}))
    with pytest.raises(Unsupported, match=name):
        generation_call(request, "m", ability(ServerKind.OTHER))


@pytest.mark.parametrize("kind", KINDS)
def test_a_named_tool_is_the_one_that_must_be_called(kind):
    choice = ToolChoice(ToolChoiceMode.NAMED, "get_time")
    request = ask("Hello!", tools=(WEATHER, TIME), tool_choice=choice)
    if kind is ServerKind.MLX_LM:
        with pytest.raises(Unsupported, match="tool"):
            body_of(kind, request)
        return
    body = body_of(kind, request)
    names = [tool["function"]["name"] for tool in body["tools"]]
    if kind is ServerKind.LLAMACPP:
        assert (names, body["tool_choice"]) == (["get_time"], "required")
    else:
        assert names == ["get_weather", "get_time"]
        assert body["tool_choice"] == {"type": "function", "function": {"name": "get_time"}}


def test_reasoning_goes_to_the_template_where_it_reaches_it():
    request = ask("Hello!", reasoning_effort=ReasoningEffort.LOW)
    assert body_of(ServerKind.OTHER, request)["reasoning_effort"] == "low"
    options = body_of(ServerKind.VLLM, request)["chat_template_kwargs"]
    assert options == {"enable_thinking": True, "reasoning_effort": "low"}
    request = ask("Hello!", reasoning_effort=ReasoningEffort.NONE)
    assert body_of(ServerKind.OTHER, request)["reasoning_effort"] == "none"
    assert body_of(ServerKind.SGLANG, request)["chat_template_kwargs"] == {"enable_thinking": False}


def test_limits_and_stop_sequences():
    request = ask("Hello!", stop_sequences=("x",), max_reply_tokens=7)
    assert {"stop": ["x"], "max_tokens": 7}.items() <= body_of(ServerKind.VLLM, request).items()
    mlx = body_of(ServerKind.MLX_LM, request)
    assert ("stop" in mlx, mlx["max_tokens"]) == (False, 7)
    assert "max_tokens" not in body_of(ServerKind.OTHER, ask("Hello!"))
    # It would else end a reply after 512 tokens.
    assert body_of(ServerKind.MLX_LM, ask("Hello!"))["max_tokens"] > 100_000


def test_a_schema_is_written_as_it_came():
    wanted = ResponseFormat(ResponseFormatKind.JSON_SCHEMA, CITY_SCHEMA)
    call = generation_call(ask("Hello!", response_format=wanted), "m", ability(ServerKind.VLLM))
    assert CITY_SCHEMA.encode() in call.body


def test_images_are_written_where_they_may_be_read():
    picture = Message(Role.USER, (TextPart("What is this?"), ImagePart(b"\x89PNG", "image/png")))
    parts = body_of(ServerKind.OTHER, ask(picture))["messages"][0]["content"]
    assert parts[1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
    with pytest.raises(Unsupported, match="images"):
        body_of(ServerKind.LLAMACPP, ask(picture), images=False)


def test_a_raw_prompt_has_a_path_of_its_own():
    request = type(ask("x"))(model="m", input=RawPrompt("a", "b"), top_logprobs_count=0)
    call = generation_call(request, "m", ability(ServerKind.OTHER))
    assert call.target == "/completions"
    assert {"prompt": "a", "suffix": "b", "logprobs": 1}.items() <= json.loads(call.body).items()
    for kind in (ServerKind.LLAMACPP, ServerKind.MLX_LM):
        with pytest.raises(Unsupported, match=r"middle|log prob"):
            generation_call(request, "m", ability(kind))


def test_tokens_are_counted_by_llamacpp_alone():
    text = count_call("hello", "m", ability(ServerKind.LLAMACPP))
    assert (text.target, text.at_root) == ("/tokenize", True)
    chat = count_call(ask("Hello!").input, "m", ability(ServerKind.LLAMACPP))
    assert (chat.target, chat.at_root) == ("/chat/completions/input_tokens", False)
    with pytest.raises(Unsupported):
        count_call("hello", "m", ability(ServerKind.VLLM))


def test_equals_can_do_what_all_of_them_can():
    llamacpp, vllm, mlx = (
        ability(kind) for kind in (ServerKind.LLAMACPP, ServerKind.VLLM, ServerKind.MLX_LM)
    )
    alone = capabilities_of([llamacpp, llamacpp])
    assert alone.exact_token_counts
    assert alone.counts_before_prefill
    both = capabilities_of([llamacpp, vllm])
    assert (both.exact_token_counts, both.counts_before_prefill, both.counts_cached) == (False, False, False)
    assert (both.json_schema, both.prefills, both.slots_count) == (True, True, 8)
    assert not capabilities_of([vllm, mlx]).json_schema
    unknown = capabilities_of([vllm, ability(ServerKind.OTHER)])
    assert (unknown.prefills, unknown.sampling < ALL_SAMPLING) == (False, True)
    for able in (alone, both, unknown):
        assert not any((able.is_local, able.kv_prefixes, able.embeddings, able.continues_replies))
