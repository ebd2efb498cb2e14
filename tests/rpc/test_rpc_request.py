"""Wire to core: every refusal's sentence, and nothing dropped or reordered."""

from __future__ import annotations

import math

import pytest
from autotune.v1 import chat_pb2 as chat
from autotune.v1 import inference_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.chat import ProfileName, Role, ToolCallPart, ToolChoiceMode, ToolResultPart
from autotuned.core.errors import AutotuneError, FieldInvalid
from autotuned.core.memory import SwapPolicy
from autotuned.rpc.request import generation_request


def ask(**fields):
    message = chat.Message(role=chat.ROLE_USER, parts=[chat.Part(text="Hello")])
    fields.setdefault("chat", chat.ChatInput(messages=[message]))
    return pb.GenerateRequest(**fields)


def with_message(**fields):
    return ask(chat=chat.ChatInput(messages=[chat.Message(**fields)]))


def with_tool(**fields):
    message = chat.Message(role=chat.ROLE_USER, parts=[chat.Part(text="Hello")])
    return ask(chat=chat.ChatInput(messages=[message], tools=[chat.Tool(**fields)]))


REFUSALS = {
    "no input": (pb.GenerateRequest(), "input: it is missing; set chat or raw_prompt."),
    "no messages": (
        ask(chat=chat.ChatInput()),
        "chat.messages: the list is empty; send at least one message.",
    ),
    "empty raw prompt": (
        pb.GenerateRequest(raw_prompt=chat.RawPrompt()),
        "raw_prompt.prompt: the prompt is empty; send some text.",
    ),
    "no role": (
        with_message(parts=[chat.Part(text="x")]),
        "chat.messages[0].role: it is missing; use system, user, assistant or tool.",
    ),
    "empty part": (
        with_message(role=chat.ROLE_USER, parts=[chat.Part()]),
        "chat.messages[0].parts[0]: it is empty; set its content.",
    ),
    "a user cannot call": (
        with_message(role=chat.ROLE_USER, parts=[chat.Part(tool_call=chat.ToolCall(name="f"))]),
        "chat.messages[0].parts[0]: a message of role user cannot carry a tool_call part.",
    ),
    "a tool answers with results": (
        with_message(role=chat.ROLE_TOOL, parts=[chat.Part(text="21 degrees")]),
        "chat.messages[0].parts[0]: a message of role tool carries tool_result parts, which name their call.",
    ),
    "a call without a name": (
        with_message(role=chat.ROLE_ASSISTANT, parts=[chat.Part(tool_call=chat.ToolCall())]),
        "chat.messages[0].parts[0].tool_call.name: it is empty; name the tool.",
    ),
    "a tool without a name": (with_tool(), "chat.tools[0].name: it is empty; name the tool."),
    "parameters that are no object": (
        with_tool(name="f", parameters_json="[1]"),
        "chat.tools[0].parameters_json: it is not a JSON object (Expected `object`, got `array`); send JSON text.",
    ),
    "parameters that go on": (
        with_tool(name="f", parameters_json='{"a": 1}, "model": "other"'),
        "chat.tools[0].parameters_json: it is not a JSON object "
        "(JSON is malformed: trailing characters (byte 9)); send JSON text.",
    ),
    "an unknown tool is chosen": (
        ask(
            chat=chat.ChatInput(
                messages=[chat.Message(role=chat.ROLE_USER)],
                tool_choice=chat.ToolChoice(mode=chat.ToolChoice.MODE_NAMED, name="g"),
            )
        ),
        'chat.tool_choice.name: there is no tool "g" in chat.tools.',
    ),
    "a tool is required of none": (
        ask(
            chat=chat.ChatInput(
                messages=[chat.Message(role=chat.ROLE_USER)],
                tool_choice=chat.ToolChoice(mode=chat.ToolChoice.MODE_REQUIRED),
            )
        ),
        "chat.tool_choice.mode: a tool is required, but chat.tools is empty.",
    ),
    "negative temperature": (
        ask(sampling=pb.Sampling(temperature=-1)),
        "sampling.temperature: -1 is out of range; use 0 to 5.",
    ),
    "NaN temperature": (
        ask(sampling=pb.Sampling(temperature=math.nan)),
        "sampling.temperature: nan is out of range; use 0 to 5.",
    ),
    "endless temperature": (
        ask(sampling=pb.Sampling(temperature=math.inf)),
        "sampling.temperature: inf is out of range; use 0 to 5.",
    ),
    "top_p of nothing": (
        ask(sampling=pb.Sampling(top_p=0)),
        "sampling.top_p: 0 is out of range; use above 0 to 1.",
    ),
    "negative top_k": (
        ask(sampling=pb.Sampling(top_k=-1)),
        "sampling.top_k: -1 is out of range; use 0 to 1,000,000.",
    ),
    "bias": (
        ask(sampling=pb.Sampling(logit_bias={5: 101})),
        "sampling.logit_bias: 5: 101 is out of range; use ids from 0 and -100 to 100.",
    ),
    "no reply": (ask(max_reply_tokens=0), "max_reply_tokens: 0 is out of range; use 1 or more."),
    "context": (ask(context_tokens=-5), "context_tokens: -5 is out of range; use 1 or more."),
    "stop": (
        ask(stop_sequences=["a", ""]),
        "stop_sequences: one is empty; send texts of at least one character.",
    ),
    "logprobs": (ask(top_logprobs_count=21), "top_logprobs_count: 21 is out of range; use 0 to 20."),
    "schema without text": (
        ask(response_format=pb.ResponseFormat(kind=pb.ResponseFormat.KIND_JSON_SCHEMA)),
        "response_format.schema_json: it is not a JSON object (Input data was truncated); send JSON text.",
    ),
    "text with a schema": (
        ask(response_format=pb.ResponseFormat(schema_json="{}")),
        "response_format.schema_json: a schema needs kind KIND_JSON_SCHEMA.",
    ),
    "unknown profile": (ask(profile=77), "profile: 77 is not a known value; use one of the enum's."),
    "continuation": (
        pb.GenerateRequest(continuation=chat.Continuation(conversation_id="c")),
        "Stored conversations are not supported yet; send the whole conversation as chat.",
    ),
    "priority": (
        ask(priority=pb.PRIORITY_INTERACTIVE),
        "priority is not supported yet; leave the field out.",
    ),
    "keep-alive": (
        ask(keep_alive_duration=Duration(seconds=366 * 24 * 3600 + 1)),
        "keep_alive_duration: 31,622,401 s is out of range; use 0 s to 31,622,400 s, "
        "or a negative time to keep the model until its memory is needed.",
    ),
    "store": (
        ask(store_policy=pb.STORE_POLICY_KEEP),
        "store_policy is not supported yet; leave the field out.",
    ),
    "recall": (
        ask(recall_policy=pb.RECALL_POLICY_ADD),
        "recall_policy is not supported yet; leave the field out.",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_what_is_wrong_and_what_to_do(case):
    request, sentence = REFUSALS[case]
    with pytest.raises(AutotuneError) as caught:
        generation_request(request)
    assert caught.value.message == sentence


def test_an_invalid_field_is_named_for_programs_too():
    with pytest.raises(FieldInvalid) as caught:
        generation_request(ask(max_reply_tokens=0))
    assert caught.value.metadata == {"field": "max_reply_tokens"}


def test_every_field_arrives():
    schema = '{"type" : "object","properties":{"b":{},"a":{"const":12345678901234567890}}}'
    request = ask(
        model="pocket",
        chat=chat.ChatInput(
            messages=[
                chat.Message(role=chat.ROLE_USER, parts=[chat.Part(text="a"), chat.Part(text="b")]),
                chat.Message(
                    role=chat.ROLE_ASSISTANT,
                    parts=[
                        chat.Part(tool_call=chat.ToolCall(id="1", name="f", arguments_json='{"z":1,"a":2}'))
                    ],
                ),
                chat.Message(
                    role=chat.ROLE_TOOL,
                    parts=[chat.Part(tool_result=chat.ToolResult(tool_call_id="1", name="f", text="ok"))],
                ),
            ],
            tools=[chat.Tool(name="f", description="d", parameters_json=schema)],
            tool_choice=chat.ToolChoice(mode=chat.ToolChoice.MODE_NAMED, name="f"),
            parallel_tool_calls=False,
        ),
        sampling=pb.Sampling(temperature=0, top_k=0, seed=0, logit_bias={7: -1.5, 3: 2}),
        max_reply_tokens=9,
        stop_sequences=["x"],
        response_format=pb.ResponseFormat(kind=pb.ResponseFormat.KIND_JSON_SCHEMA, schema_json=schema),
        top_logprobs_count=0,
        profile=pb.PROFILE_FAST,
        context_tokens=1024,
        engine="llamacpp",
        swap_policy=pb.SWAP_POLICY_NEVER,
        keep_alive_duration=Duration(seconds=90, nanos=500_000_000),
        store_policy=pb.STORE_POLICY_DISCARD,
    )
    core = generation_request(request, "agent")
    assert core.model == "pocket"
    assert [message.role for message in core.input.messages] == [Role.USER, Role.ASSISTANT, Role.TOOL]
    assert core.input.messages[1].parts == (ToolCallPart("1", "f", '{"z":1,"a":2}'),)
    assert core.input.messages[2].parts == (ToolResultPart("1", "f", "ok"),)
    assert core.input.tools[0].parameters_json == schema
    assert core.input.tool_choice.mode is ToolChoiceMode.NAMED
    assert core.input.parallel_tool_calls is False
    assert (core.sampling.temperature, core.sampling.top_k, core.sampling.seed) == (0.0, 0, 0)
    assert core.sampling.top_p is None
    assert core.sampling.logit_bias == ((3, 2.0), (7, -1.5))
    assert core.response_format.schema_json == schema
    assert (core.max_reply_tokens, core.top_logprobs_count, core.context_tokens) == (9, 0, 1024)
    assert core.profile is ProfileName.FAST
    assert (core.swap_policy, core.keep_alive_seconds) == (SwapPolicy.NEVER, 90.5)
    assert (core.discard, core.client) == (True, "agent")


SAMPLING_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(),
        "top_p": st.floats(),
        "top_k": st.integers(-(2**31), 2**31 - 1),
        "min_p": st.floats(),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "repeat_penalty": st.floats(),
        "presence_penalty": st.floats(),
        "frequency_penalty": st.floats(),
    },
)


@given(SAMPLING_FIELDS)
def test_sampling_is_refused_by_name_or_taken_over_whole(fields):
    try:
        sampling = generation_request(ask(sampling=pb.Sampling(**fields))).sampling
    except FieldInvalid as error:
        refused = error.field.removeprefix("sampling.")
        assert refused in fields
    else:
        assert {name: getattr(sampling, name) for name in fields} == fields
        assert all(math.isfinite(value) for value in fields.values())
