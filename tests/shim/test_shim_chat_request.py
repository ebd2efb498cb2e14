from __future__ import annotations

import json
from typing import Any

import pytest
from autotune.v1 import chat_pb2
from autotune.v1 import inference_service_pb2 as wire
from autotune_shim.exchange import RequestInvalid
from autotune_shim.openai.chat_request import read_chat_request
from hypothesis import given
from hypothesis import strategies as st

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def read(headers: dict[str, str] | None = None, **fields: Any) -> wire.GenerateRequest:
    body = json.dumps({"messages": [USER], **fields}).encode()
    return read_chat_request(body, headers or {})[1]


def refused(body: bytes | None = None, **fields: Any) -> RequestInvalid:
    with pytest.raises(RequestInvalid) as caught:
        read_chat_request(
            body if body is not None else json.dumps({"messages": [USER], **fields}).encode(), {}
        )
    assert caught.value.message.endswith(".")
    return caught.value


def test_a_bare_request_sets_nothing_that_was_not_said():
    request = read()
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="Hi")])
    assert request == wire.GenerateRequest(
        chat=chat_pb2.ChatInput(messages=[message]), sampling=wire.Sampling()
    )


def test_every_sampling_field_arrives():
    request = read(
        model="pocket",
        temperature=0,
        top_p=0.5,
        top_k=0,
        min_p=0,
        seed=7,
        presence_penalty=-2,
        frequency_penalty=2,
        repetition_penalty=1.1,
        logit_bias={"5": -100, "6": 2.5},
        stop=["a", "b"],
        max_tokens=12,
        parallel_tool_calls=False,
        reasoning_effort="high",
    )
    assert request.model == "pocket"
    assert request.sampling == wire.Sampling(
        temperature=0,
        top_p=0.5,
        top_k=0,
        min_p=0,
        seed=7,
        presence_penalty=-2,
        frequency_penalty=2,
        repeat_penalty=1.1,
        logit_bias={5: -100, 6: 2.5},
    )
    assert list(request.stop_sequences) == ["a", "b"]
    assert request.max_reply_tokens == 12
    assert request.chat.HasField("parallel_tool_calls")
    assert request.reasoning_effort == wire.REASONING_EFFORT_HIGH


def test_null_is_the_same_as_absent():
    fields = [
        *(
            "model",
            "temperature",
            "top_p",
            "seed",
            "stop",
            "max_tokens",
            "max_completion_tokens",
            "n",
            "stream",
        ),
        *(
            "stream_options",
            "tools",
            "tool_choice",
            "response_format",
            "logprobs",
            "top_logprobs",
            "logit_bias",
        ),
        *("reasoning_effort", "user", "metadata", "store", "modalities", "audio", "functions", "prediction"),
    ]
    assert read(**dict.fromkeys(fields)) == read()


def test_harmless_fields_change_nothing():
    harmless = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "safety_identifier": "x",
        "prompt_cache_key": "k",
        "modalities": ["text"],
        "verbosity": "medium",
        "n": 1,
        "functions": [],
        "stream_options": {"include_obfuscation": False},
    }
    assert read(**harmless) == read()


def test_max_completion_tokens_wins_over_the_older_name():
    assert read(max_tokens=5, max_completion_tokens=9).max_reply_tokens == 9


def test_one_stop_text_is_a_list_of_one():
    assert list(read(stop="END").stop_sequences) == ["END"]


@pytest.mark.parametrize(
    ("name", "effort"),
    [
        ("none", wire.REASONING_EFFORT_NONE),
        ("minimal", wire.REASONING_EFFORT_LOW),
        ("low", wire.REASONING_EFFORT_LOW),
        ("medium", wire.REASONING_EFFORT_MEDIUM),
        ("xhigh", wire.REASONING_EFFORT_HIGH),
    ],
)
def test_reasoning_effort(name, effort):
    assert read(reasoning_effort=name).reasoning_effort == effort


def test_profile_of_the_body_wins_over_the_header():
    assert read(headers={"x-autotune-profile": "fast"}).profile == wire.PROFILE_FAST
    assert read(headers={"x-autotune-profile": "fast"}, profile="quality").profile == wire.PROFILE_QUALITY
    assert refused(profile="turbo").field == "profile"


def test_a_profile_header_that_is_none_is_refused():
    with pytest.raises(RequestInvalid, match="x-autotune-profile") as caught:
        read_chat_request(json.dumps({"messages": [USER]}).encode(), {"x-autotune-profile": "turbo"})
    assert caught.value.field == "x-autotune-profile"


def test_logprobs():
    assert not read().HasField("top_logprobs_count")
    assert read(logprobs=True).top_logprobs_count == 0
    assert read(logprobs=True).HasField("top_logprobs_count")
    assert read(logprobs=True, top_logprobs=3).top_logprobs_count == 3
    assert refused(top_logprobs=3).field == "top_logprobs"


def test_tool_choices():
    mode = chat_pb2.ToolChoice
    assert read(tools=[TOOL], tool_choice="none").chat.tool_choice.mode == mode.MODE_NONE
    assert read(tools=[TOOL], tool_choice="auto").chat.tool_choice.mode == mode.MODE_AUTO
    assert read(tools=[TOOL], tool_choice="required").chat.tool_choice.mode == mode.MODE_REQUIRED
    named = read(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "add"}}).chat.tool_choice
    assert (named.mode, named.name) == (mode.MODE_NAMED, "add")
    assert read(tool_choice="auto").chat.tool_choice.mode == mode.MODE_AUTO


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "sub"}}}, "tool_choice.function.name"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields, field):
    assert refused(**fields).field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("store", True),
        ("audio", {"voice": "x"}),
        ("modalities", ["text", "audio"]),
        ("functions", [{"name": "x"}]),
        ("function_call", "auto"),
        ("web_search_options", {}),
        ("prediction", {"type": "content", "content": "x"}),
        ("moderation", {"model": "x"}),
        ("verbosity", "high"),
        ("best_of", 2),
        ("temprature", 0.5),
    ],
)
def test_what_would_change_the_answer_and_cannot_be_honoured_is_refused(field, value):
    error = refused(**{field: value})
    assert error.field == field
    assert error.code in {"unsupported_parameter", "unsupported_value", "unknown_parameter"}
    assert error.status == 400
    assert field in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 5.1),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 2),
        ("seed", 2**63),
        ("presence_penalty", 2.1),
        ("repetition_penalty", 0),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_completion_tokens", 1.5),
        ("top_logprobs", 21),
        ("stop", [1]),
        ("stream", "yes"),
        ("messages", []),
        ("messages", "Hi"),
        ("messages", None),
        ("model", 3),
        ("tools", {}),
    ],
)
def test_a_value_out_of_range_or_of_the_wrong_type_is_refused_by_name(field, value):
    assert refused(**{field: value}).field.split("[")[0] == field


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_value"),
        (b'{"messages":[{"role":"user","content":"Hi"}],"temperature":NaN}', "invalid_json"),
        (b'{"messages":[{"role":"user","content":"Hi"}],"temperature":1e999}', "invalid_value"),
        (b'{"messages":[{"role":"user","content":"\\ud800"}]}', "invalid_encoding"),
        (b'{"messages":[{"role":"user","content":"\\udc00x"}]}', "invalid_encoding"),
        (b'{"messages":[{"role":"user","content":"\xff"}]}', "invalid_encoding"),
        (b'{"messages":[{"role":"user","content":"\xed\xa0\x80"}]}', "invalid_encoding"),
        (b'{"messages":[{"content":"Hi"}]}', "missing_required_parameter"),
        (b"{}", "missing_required_parameter"),
        (b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
        (
            b'{"tools":[{"type":"function","function":{"name":"a","parameters":' + b"[" * 100_000,
            "invalid_json",
        ),
    ],
)
def test_a_body_that_is_no_request_says_why(body, code):
    assert refused(body).code == code


def test_a_schema_with_bytes_that_are_no_text_is_refused():
    body = b'{"messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":'
    error = refused(body + b'{"name":"a","parameters":{"x":"\xff"}}}]}')
    assert (error.field, error.code) == ("tools[0].function.parameters", "invalid_encoding")


def test_response_formats():
    assert not read(response_format={"type": "text"}).HasField("response_format")
    assert (
        read(response_format={"type": "json_object"}).response_format.kind
        == wire.ResponseFormat.KIND_JSON_OBJECT
    )
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}}}
    made = read(response_format=form).response_format
    assert made.kind == wire.ResponseFormat.KIND_JSON_SCHEMA
    assert made.schema_json == '{"type": "object"}'


def test_a_tool_without_parameters_has_none():
    tools = [{"type": "function", "function": {"name": "a"}}]
    tools.append({"type": "function", "function": {"name": "b", "description": "B", "parameters": None}})
    made = read(tools=tools).chat.tools
    assert [(tool.name, tool.description, tool.parameters_json) for tool in made] == [
        ("a", "", ""),
        ("b", "B", ""),
    ]


TRICKY = (
    '{ "z":1,"a" :2.50,"big":123456789012345678901234567890,\n\t"e":1E+2 ,'
    '"u":"\\u00e9\\ud83d\\ude00é\\/","a":null, "n":[ ] }'
)


def test_schemas_and_arguments_travel_byte_for_byte():
    arguments = json.dumps(TRICKY)
    body = (
        '{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1",'
        f'"type":"function","function":{{"name":"f","arguments":{arguments}}}}}]}},'
        '{"role":"tool","tool_call_id":"c1","content":"7"}],'
        f'"tools":[{{"type":"function","function":{{"parameters":{TRICKY},"name":"f"}}}}],'
        f'"response_format":{{"type":"json_schema","json_schema":{{"schema":{TRICKY},"name":"s"}}}}}}'
    )
    request = read_chat_request(body.encode(), {})[1]
    assert request.chat.tools[0].parameters_json == TRICKY
    assert request.response_format.schema_json == TRICKY
    assert request.chat.messages[1].parts[0].tool_call.arguments_json == TRICKY


spaces = st.text(" \t\r\n", max_size=3)
strings = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(json.dumps),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(
        lambda s: json.dumps(s, ensure_ascii=False)
    ),
)
leaves = st.one_of(
    strings,
    st.sampled_from(["true", "false", "null", "0", "-0", "1.50", "1e5", "1E-7"]),
    st.integers().map(str),
)


def padded(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(spaces, parts, spaces).map("".join)


def containers(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.tuples(padded(strings), padded(values)).map(":".join)
    return st.one_of(
        st.lists(padded(values), max_size=4).map(lambda items: "[" + ",".join(items) + "]"),
        st.lists(members, max_size=4).map(lambda items: "{" + ",".join(items) + "}"),
    )


json_texts = st.recursive(leaves, containers, max_leaves=12).filter(lambda text: text != "null")


@given(json_texts)
def test_any_json_keeps_its_bytes(schema):
    body = (
        '{"messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"f",'
        f'"parameters":{schema}}}}}]}}'
    )
    assert read_chat_request(body.encode(), {})[1].chat.tools[0].parameters_json == schema


@given(st.data())
def test_whatever_arrives_is_read_or_refused(data):
    whole = json.dumps(
        {"messages": [USER], "tools": [TOOL], "temperature": 0.5, "stop": ["a"], "logit_bias": {"1": 2}}
    ).encode()
    cut = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=6))
    skip = data.draw(st.integers(0, 6))
    body = whole[:cut] + junk + whole[cut + skip :]
    refusal = "."
    try:
        read_chat_request(body, {})
    except RequestInvalid as error:
        refusal = error.message
    assert refusal.endswith(".")
