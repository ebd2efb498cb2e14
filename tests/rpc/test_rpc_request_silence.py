"""What a client sets is never dropped in silence, and JSON text is checked before anybody waits for it."""

from __future__ import annotations

import json

import pytest
from autotune.v1 import chat_pb2 as chat
from autotune.v1 import inference_service_pb2 as pb

from autotuned.core.errors import FieldInvalid, Unsupported
from autotuned.rpc.request import generation_request

HELLO = chat.Message(role=chat.ROLE_USER, parts=[chat.Part(text="Hello")])
UNKNOWN = 9


def schema_of_depth(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def asked(**fields):
    return pb.GenerateRequest(chat=chat.ChatInput(messages=[HELLO], **fields))


def with_schema(text):
    wanted = pb.ResponseFormat(kind=pb.ResponseFormat.KIND_JSON_SCHEMA, schema_json=text)
    return pb.GenerateRequest(chat=chat.ChatInput(messages=[HELLO]), response_format=wanted)


def with_tool(text):
    return asked(tools=[chat.Tool(name="f", parameters_json=text)])


def with_call(text):
    call = chat.Part(tool_call=chat.ToolCall(id="1", name="f", arguments_json=text))
    called = chat.Message(role=chat.ROLE_ASSISTANT, parts=[call])
    return pb.GenerateRequest(chat=chat.ChatInput(messages=[HELLO, called]))


JSON_FIELDS = {
    "response_format.schema_json": with_schema,
    "chat.tools[0].parameters_json": with_tool,
    "chat.messages[1].parts[0].tool_call.arguments_json": with_call,
}


@pytest.mark.parametrize("field", ["store_policy", "recall_policy", "priority"])
def test_a_policy_of_a_newer_client_is_refused(field):
    request = asked()
    setattr(request, field, UNKNOWN)
    with pytest.raises(Unsupported, match=f"{field} is not supported yet"):
        generation_request(request)


@pytest.mark.parametrize(
    "fields",
    [
        {"recall_policy": pb.RECALL_POLICY_OMIT},
        {"priority": pb.PRIORITY_NORMAL},
    ],
)
def test_what_happens_anyway_may_be_asked_for(fields):
    request = asked()
    request.MergeFrom(pb.GenerateRequest(**fields))
    assert generation_request(request).input.messages


@pytest.mark.parametrize("field", ["swap_policy", "profile", "reasoning_effort"])
def test_a_value_of_a_newer_client_is_refused(field):
    request = asked()
    setattr(request, field, UNKNOWN)
    with pytest.raises(FieldInvalid, match=f"{field}: 9 is not a known value"):
        generation_request(request)


def test_an_empty_message_of_a_tool_is_refused_rather_than_left_out():
    empty = chat.Message(role=chat.ROLE_TOOL)
    with pytest.raises(FieldInvalid) as refusal:
        generation_request(pb.GenerateRequest(chat=chat.ChatInput(messages=[HELLO, empty])))
    assert (
        refusal.value.message
        == "chat.messages[1].parts: a message of role tool is empty; send a tool_result part."
    )


@pytest.mark.parametrize("mode", [chat.ToolChoice.MODE_UNSPECIFIED, chat.ToolChoice.MODE_REQUIRED])
def test_a_tool_that_is_named_in_another_mode_is_refused(mode):
    choice = chat.ToolChoice(mode=mode, name="f")
    with pytest.raises(FieldInvalid, match=r"chat\.tool_choice\.name: a name needs mode MODE_NAMED"):
        generation_request(asked(tools=[chat.Tool(name="f")], tool_choice=choice))


@pytest.mark.parametrize("field", JSON_FIELDS)
@pytest.mark.parametrize("levels", [257, 3_000, 300_000])
def test_json_that_could_overflow_a_stack_is_refused(field, levels):
    with pytest.raises(FieldInvalid) as refusal:
        generation_request(JSON_FIELDS[field](schema_of_depth(levels)))
    assert refusal.value.message == f"{field}: it is nested too deeply; use at most 256 levels."


@pytest.mark.parametrize("field", JSON_FIELDS)
@pytest.mark.parametrize("levels", [1, 256])
def test_json_up_to_the_limit_is_taken(field, levels):
    assert generation_request(JSON_FIELDS[field](schema_of_depth(levels)))


@pytest.mark.parametrize("field", JSON_FIELDS)
@pytest.mark.parametrize(
    "text", ["null", "[1]", '{"a": 1} {}', '{"a": NaN}', '{"a": 1}, "n_predict": 9', "{"]
)
def test_text_that_is_no_json_object_is_refused(field, text):
    with pytest.raises(FieldInvalid, match="it is not a JSON object") as refusal:
        generation_request(JSON_FIELDS[field](text))
    assert refusal.value.field == field


@pytest.mark.parametrize("field", JSON_FIELDS)
def test_json_keeps_every_byte(field):
    text = json.dumps({"z": 1, "a": [1.50, "\u20ac"]}, indent=3, ensure_ascii=False) + "\n"
    core = generation_request(JSON_FIELDS[field](text))
    assert text in {
        core.response_format.schema_json,
        *(tool.parameters_json for tool in core.input.tools),
        *(getattr(part, "arguments_json", "") for message in core.input.messages for part in message.parts),
    }


def test_a_limit_is_written_out():
    with pytest.raises(FieldInvalid) as refusal:
        generation_request(pb.GenerateRequest(chat=asked().chat, sampling=pb.Sampling(top_k=1_234_567)))
    assert refusal.value.message == "sampling.top_k: 1,234,567 is out of range; use 0 to 1,000,000."
