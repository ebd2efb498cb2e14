from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from autotune.v1 import chat_pb2 as wire
from autotune_shim.exchange import RequestInvalid
from autotune_shim.openai.chat_request import read_chat_request

PIXEL = base64.b64encode(b"\x89PNG pixel").decode()


def read(*messages: dict[str, Any]) -> list[wire.Message]:
    body = json.dumps({"messages": messages}).encode()
    return list(read_chat_request(body, {})[1].chat.messages)


def refused(*messages: dict[str, Any]) -> RequestInvalid:
    with pytest.raises(RequestInvalid) as caught:
        read(*messages)
    return caught.value


@pytest.mark.parametrize(
    ("role", "made"),
    [
        ("system", wire.ROLE_SYSTEM),
        ("developer", wire.ROLE_SYSTEM),
        ("user", wire.ROLE_USER),
        ("assistant", wire.ROLE_ASSISTANT),
    ],
)
def test_roles(role, made):
    assert read({"role": role, "content": "x"}) == [wire.Message(role=made, parts=[wire.Part(text="x")])]


@pytest.mark.parametrize("role", ["function", "robot", ""])
def test_other_roles_are_refused(role):
    assert (
        refused({"role": "user", "content": "x"}, {"role": role, "content": "x"}).field == "messages[1].role"
    )


@pytest.mark.parametrize("content", ["", None, []])
def test_no_content_is_a_message_without_parts(content):
    assert read({"role": "user", "content": content}) == [wire.Message(role=wire.ROLE_USER)]


def test_parts_keep_their_order():
    content = [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
        {"type": "text", "text": "b"},
    ]
    parts = read({"role": "user", "content": content})[0].parts
    assert [part.WhichOneof("content") for part in parts] == ["text", "image", "text"]
    assert parts[1].image == wire.Image(data=b"\x89PNG pixel", media_type="image/png")


@pytest.mark.parametrize(
    "url",
    ["https://example.org/a.png", "data:image/png,raw", "data:image/png;base64,!!!", "", "data:;base64"],
)
def test_images_are_never_fetched(url):
    error = refused({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    assert error.field == "messages[0].content[0].image_url.url"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [{"text": "x"}]}, "messages[0].content[0].type"),
        ({"role": "system", "content": [{"type": "image_url"}]}, "messages[0].content[0]"),
        ({"role": "user", "content": 3}, "messages[0].content"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        (
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "image_url"}]},
            "messages[0].content[0].type",
        ),
        (
            {"role": "user", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": ""}}]},
            "messages[0].tool_calls",
        ),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "assistant", "audio": {"id": "a"}}, "messages[0].audio"),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": "custom", "function": {"name": "f", "arguments": ""}}],
            },
            "messages[0].tool_calls[0].type",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_is_wrong_is_named(message, field):
    assert refused(message).field == field


def test_an_assistant_that_thought_spoke_and_called():
    message = {
        "role": "assistant",
        "content": "Let me see.",
        "reasoning_content": "They want a sum.",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "index": 0,
                "function": {"name": "add", "arguments": '{"a": 1}'},
            },
            {"id": "c2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
        ],
    }
    parts = read(message)[0].parts
    assert [part.WhichOneof("content") for part in parts] == ["reasoning", "text", "tool_call", "tool_call"]
    assert parts[0].reasoning == "They want a sum."
    assert parts[2].tool_call == wire.ToolCall(id="c1", name="add", arguments_json='{"a": 1}')


def test_the_other_name_of_reasoning_and_a_refusal():
    parts = read({"role": "assistant", "content": None, "reasoning": "Hm.", "refusal": "No."})[0].parts
    assert [part.reasoning or part.text for part in parts] == ["Hm.", "No."]


@pytest.mark.parametrize(
    "content", ["21 degrees", [{"type": "text", "text": "21 "}, {"type": "text", "text": "degrees"}]]
)
def test_a_tool_result(content):
    message = read({"role": "tool", "tool_call_id": "c1", "name": "get_weather", "content": content})[0]
    result = wire.ToolResult(tool_call_id="c1", name="get_weather", text="21 degrees")
    assert message == wire.Message(role=wire.ROLE_TOOL, parts=[wire.Part(tool_result=result)])
