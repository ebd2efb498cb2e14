"""What is sent to the server: the golden bodies, and JSON from clients byte for byte."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
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
from autotuned.engines.llamacpp.body import count_call, generation_call
from autotuned.engines.llamacpp.response_format import enforced_format

QUESTION = Message(Role.USER, (TextPart("Hello!"),))
STREAMED = {"stream": True, "return_progress": True, "cache_prompt": True}
ODD_JSON = '{ "b" :1.50,\n"a": [ 1e3 , "\\u00e9" ], "type":"object" }'


def request(*messages, tools=(), choice=ToolChoice(), parallel=None, **fields):  # noqa: B008 - it is frozen
    chat = ChatInput(messages or (QUESTION,), tools, choice, parallel)
    return GenerationRequest(model="pocket", input=chat, **fields)


def body_of(wanted):
    return json.loads(generation_call(wanted).body)


def test_a_plain_question():
    call = generation_call(request())
    assert call.target == "/v1/chat/completions"
    assert json.loads(call.body) == STREAMED | {
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": -1,
    }


def test_everything_at_once():
    wanted = request(
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        Message(Role.USER, (TextPart("What is"), TextPart("this?"))),
        Message(
            Role.ASSISTANT,
            (ReasoningPart("Hm."), TextPart("Let me see."), ToolCallPart("1", "f", '{"a": 1}')),
        ),
        Message(Role.TOOL, (ToolResultPart("1", "f", "one"), ToolResultPart("2", "", "two"))),
        Message(Role.ASSISTANT, ()),
        tools=(Tool("f", "does f", ODD_JSON), Tool("g", "", "")),
        choice=ToolChoice(ToolChoiceMode.REQUIRED),
        parallel=False,
        sampling=Sampling(
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            min_p=0.1,
            seed=7,
            repeat_penalty=1.1,
            presence_penalty=0.2,
            frequency_penalty=0.3,
            logit_bias=((5, -100.0), (6, 1.5)),
        ),
        max_reply_tokens=100,
        stop_sequences=("a", "b"),
        reasoning_effort=ReasoningEffort.LOW,
    )
    assert body_of(wanted) == STREAMED | {
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}],
            },
            {
                "role": "assistant",
                "content": "Let me see.",
                "reasoning_content": "Hm.",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "one", "name": "f"},
            {"role": "tool", "tool_call_id": "2", "content": "two"},
            {"role": "assistant", "content": ""},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "does f", "parameters": json.loads(ODD_JSON)},
            },
            {
                "type": "function",
                "function": {
                    "name": "g",
                    "description": "",
                    "parameters": {"type": "object", "properties": {}},
                },
            },
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "seed": 7,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "logit_bias": [[5, -100.0], [6, 1.5]],
        "stop": ["a", "b"],
        "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"},
    }


def test_json_from_a_client_stays_byte_for_byte():
    schema = ResponseFormat(ResponseFormatKind.JSON_SCHEMA, ODD_JSON)
    body = generation_call(request(tools=(Tool("f", "", ODD_JSON),), response_format=schema)).body
    assert body.count(ODD_JSON.encode()) == 2
    call = Message(Role.ASSISTANT, (ToolCallPart("1", "f", ODD_JSON),))
    body = body_of(request(QUESTION, call, tools=(Tool("f", "", ""),)))
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == ODD_JSON


@pytest.mark.parametrize(
    ("mode", "name", "offered", "choice"),
    [
        (ToolChoiceMode.AUTO, "", ["f", "g"], "auto"),
        (ToolChoiceMode.NONE, "", ["f", "g"], "none"),
        (ToolChoiceMode.REQUIRED, "", ["f", "g"], "required"),
        (ToolChoiceMode.NAMED, "g", ["g"], "required"),
    ],
)
def test_a_tool_choice_is_one_that_the_engine_keeps(mode, name, offered, choice):
    tools = (Tool("f", "", ""), Tool("g", "", ""))
    body = body_of(request(tools=tools, choice=ToolChoice(mode, name)))
    assert [tool["function"]["name"] for tool in body["tools"]] == offered
    assert body["tool_choice"] == choice


def test_without_tools_there_is_no_choice():
    body = body_of(request(choice=ToolChoice(ToolChoiceMode.NONE), parallel=True))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(body)


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (ResponseFormat(), None),
        (
            ResponseFormat(ResponseFormatKind.JSON_OBJECT),
            {"type": "json_object", "schema": {"type": "object"}},
        ),
        (
            ResponseFormat(ResponseFormatKind.JSON_SCHEMA, '{"type":"object"}'),
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
        ),
    ],
)
def test_a_response_format(wanted, sent):
    assert body_of(request(response_format=wanted)).get("response_format") == sent


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ('{"properties": {"a": {"$ref": "https://example.com/s.json"}}}', "copy it in"),
        ('{"anyOf": [{"type": "null"}, {"enum": []}]}', "empty enum"),
        ('{"enum": []}', "empty enum"),
    ],
)
def test_a_schema_that_older_builds_would_drop_is_refused(schema, sentence):
    with pytest.raises(FieldInvalid, match=rf"response_format\.schema_json.*{sentence}"):
        body_of(request(response_format=ResponseFormat(ResponseFormatKind.JSON_SCHEMA, schema)))


@pytest.mark.parametrize(
    "schema",
    [
        '{"properties": {"$ref": {"type": "string"}, "enum": {"enum": [1]}}}',
        '{"default": {"enum": []}, "examples": [{"$ref": "x"}]}',
        '{"$defs": {"a": {"type": "null"}}, "$ref": "#/$defs/a"}',
        '{"enum": [[], {"$ref": "x"}]}',
        "{" * 5,
        '{"not": ' * 5000 + "1" + "}" * 5000,
    ],
    ids=["names", "values", "own", "in an enum", "no JSON", "deep"],
)
def test_other_schemas_are_for_the_engine_to_judge(schema):
    sent = enforced_format(ResponseFormat(ResponseFormatKind.JSON_SCHEMA, schema))["response_format"]
    assert bytes(sent["json_schema"]["schema"]) == schema.encode()


def test_an_answer_that_was_begun_goes_on_and_is_not_repeated():
    begun = body_of(request(QUESTION, Message(Role.ASSISTANT, (TextPart("Hel"),))))
    assert (begun["continue_final_message"], begun["add_generation_prompt"]) == (True, False)
    assert "continue_final_message" not in body_of(request(QUESTION))


@pytest.mark.parametrize(("count", "sent"), [(None, None), (0, 1), (1, 1), (20, 20)])
def test_log_probabilities(count, sent):
    body = body_of(request(top_logprobs_count=count))
    assert body.get("top_logprobs") == sent
    assert body.get("logprobs") is (None if count is None else True)


def test_no_thinking_is_said_in_the_templates_words():
    body = body_of(request(reasoning_effort=ReasoningEffort.NONE))
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_every_seed_is_a_seed(seed):
    sent = body_of(request(sampling=Sampling(seed=seed)))["seed"]
    assert 0 <= sent < 0xFFFFFFFF
    if 0 <= seed < 0xFFFFFFFF:
        assert sent == seed


def test_a_reply_limit_beyond_the_engines_numbers_is_its_largest():
    assert body_of(request(max_reply_tokens=1 << 40))["max_tokens"] == (1 << 31) - 1


def test_a_raw_prompt():
    wanted = replace(
        request(
            sampling=Sampling(temperature=0.0),
            stop_sequences=("x",),
            top_logprobs_count=0,
            max_reply_tokens=5,
        ),
        input=RawPrompt("Once"),
    )
    call = generation_call(wanted)
    assert call.target == "/completion"
    body = json.loads(call.body)
    assert "timings" in body.pop("response_fields")
    assert body == STREAMED | {
        "prompt": "Once",
        "n_predict": 5,
        "temperature": 0.0,
        "stop": ["x"],
        "n_probs": 1,
    }


def test_a_suffix_is_filled_in():
    call = generation_call(replace(request(), input=RawPrompt("def f(", "return 1")))
    assert call.target == "/infill"
    body = json.loads(call.body)
    assert (body["input_prefix"], body["input_suffix"]) == ("def f(", "return 1")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"response_format": ResponseFormat(ResponseFormatKind.JSON_OBJECT)}, "response format"),
        ({"reasoning_effort": ReasoningEffort.HIGH}, "reasoning effort"),
    ],
)
def test_what_a_raw_prompt_cannot_have_is_refused(fields, words):
    with pytest.raises(Unsupported, match=words):
        generation_call(replace(request(**fields), input=RawPrompt("Once")))


def test_log_probabilities_and_tools_exclude_each_other():
    with pytest.raises(Unsupported, match="Log probabilities"):
        generation_call(request(tools=(Tool("f", "", ""),), top_logprobs_count=1))


def test_counting_a_chat_sends_what_the_prompt_is_made_of():
    wanted = request(tools=(Tool("f", "", ""),))
    call = count_call(wanted.input)
    assert call.target == "/v1/chat/completions/input_tokens"
    sent = body_of(wanted)
    assert json.loads(call.body) == {key: sent[key] for key in ("messages", "tools", "tool_choice")}


def test_counting_a_text():
    call = count_call("Once")
    assert call.target == "/tokenize"
    assert json.loads(call.body) == {"content": "Once", "add_special": True, "parse_special": True}


@given(st.text())
def test_any_text_goes_through_unchanged(text):
    assert body_of(request(Message(Role.USER, (TextPart(text),))))["messages"][0]["content"] == text
