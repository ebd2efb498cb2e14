"""From a conversation to the JSON of OpenAI's chat dialect, which most engines read.

The adapters put their own options beside it. Text that is JSON already (schemas, arguments) goes in byte
for byte, because its order decides whether an engine finds its prefix again; that it is one JSON object
was checked where it came in.
Invariant: everything that a conversation says is in its JSON or refused here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from autotuned.core.chat import (
    ChatInput,
    ImagePart,
    Message,
    ReasoningPart,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from autotuned.core.errors import FieldInvalid, Unsupported

Json = dict[str, Any]
NO_PARAMETERS = '{"type":"object","properties":{}}'

_encode = msgspec.json.Encoder().encode


def messages_json(chat: ChatInput, *, images: bool) -> list[Json]:
    """The messages. Raises ``Unsupported`` for an image where the engine reads none."""
    return [
        entry
        for index, message in enumerate(chat.messages)
        for entry in _messages(index, message, images=images)
    ]


def tools_json(tools: Iterable[Tool]) -> list[Json]:
    """The functions that the model may call."""
    return [_tool(tool) for tool in tools]


def response_format_json(wanted: ResponseFormat) -> Json:
    """The option that asks for this form; empty for plain text."""
    if wanted.kind is ResponseFormatKind.TEXT:
        return {}
    if wanted.kind is ResponseFormatKind.JSON_OBJECT:
        return {"response_format": {"type": "json_object"}}
    schema = msgspec.Raw(wanted.schema_json.encode())
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def encoded(body: Json) -> bytes:
    """The bytes of a body. Raises ``FieldInvalid`` for text that is no Unicode."""
    try:
        return _encode(body)
    except UnicodeEncodeError:
        raise FieldInvalid("request", "a text in it is not valid Unicode; send valid UTF-8.") from None


def _messages(index: int, message: Message, *, images: bool) -> Iterator[Json]:
    """One message, or one for each result of a tool message."""
    path = f"chat.messages[{index}]"
    if not images and any(isinstance(part, ImagePart) for part in message.parts):
        raise Unsupported("This engine does not read images; send text only.", field=path)
    if message.role is Role.TOOL:
        yield from (_tool_result(part) for part in message.parts if isinstance(part, ToolResultPart))
        return
    entry: Json = {"role": message.role.value, "content": _content(message)}
    if reasoning := "".join(part.text for part in message.parts if isinstance(part, ReasoningPart)):
        entry["reasoning_content"] = reasoning
    if calls := [_tool_call(part) for part in message.parts if isinstance(part, ToolCallPart)]:
        entry["tool_calls"] = calls
    yield entry


def _content(message: Message) -> str | list[Json]:
    contents = [part for part in message.parts if isinstance(part, TextPart | ImagePart)]
    if len(contents) == 1 and isinstance(contents[0], TextPart):
        return contents[0].text
    return [_content_part(part) for part in contents] if contents else ""


def _content_part(part: TextPart | ImagePart) -> Json:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    data = base64.b64encode(part.data).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{part.media_type};base64,{data}"}}


def _tool_call(part: ToolCallPart) -> Json:
    arguments = part.arguments_json or "{}"
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def _tool_result(part: ToolResultPart) -> Json:
    entry: Json = {"role": "tool", "tool_call_id": part.tool_call_id, "content": part.text}
    return entry | {"name": part.name} if part.name else entry


def _tool(tool: Tool) -> Json:
    parameters = tool.parameters_json or NO_PARAMETERS
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": msgspec.Raw(parameters.encode()),
    }
    return {"type": "function", "function": function}
