"""From a conversation to the messages and tools of Ollama's own dialect.

``body`` calls it. Ollama wants arguments as an object where clients send text: the text goes in as it is, so
that nothing that decides over a prefix is put into another order.
Invariant: everything that a conversation says is in its JSON or refused here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import msgspec

from autotuned.core.chat import (
    ChatInput,
    ImagePart,
    Message,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolChoiceMode,
    ToolResultPart,
)
from autotuned.core.errors import FieldInvalid, Unsupported
from autotuned.engines.chat_json import Json, tools_json


def chat_json(chat: ChatInput, *, model: str, sees: bool) -> Json:
    """Messages and tools. Raises ``FieldInvalid`` and ``Unsupported``."""
    if not chat.messages:
        raise FieldInvalid("chat.messages", "there is none; send at least one.")
    if chat.tools and chat.tool_choice.mode in {ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED}:
        raise Unsupported("Ollama cannot be told to call a tool; leave the tool choice out.")
    names: dict[str, str] = {}
    body: Json = {
        "messages": [
            entry
            for index, message in enumerate(chat.messages)
            for entry in _entries(index, message, names, model=model, sees=sees)
        ]
    }
    if chat.tools and chat.tool_choice.mode is not ToolChoiceMode.NONE:
        body["tools"] = tools_json(chat.tools)
    return body


def _entries(
    index: int, message: Message, names: dict[str, str], *, model: str, sees: bool
) -> Iterator[Json]:
    """One message, or one for each result of a tool message. ``names`` has those of the calls so far."""
    if message.role is Role.TOOL:
        for part in message.parts:
            if isinstance(part, ToolResultPart):
                yield _tool_result(part, names)
        return
    # llama.cpp joins the texts of one message in this way.
    text = "\n".join(part.text for part in message.parts if isinstance(part, TextPart))
    entry: Json = {"role": message.role.value, "content": text}
    if pictures := [part for part in message.parts if isinstance(part, ImagePart)]:
        if not sees:
            raise Unsupported(
                f'"{model}" does not read images; send text only.', field=f"chat.messages[{index}]"
            )
        entry["images"] = [base64.b64encode(picture.data).decode() for picture in pictures]
    if thought := "".join(part.text for part in message.parts if isinstance(part, ReasoningPart)):
        entry["thinking"] = thought
    if calls := [part for part in message.parts if isinstance(part, ToolCallPart)]:
        names |= {call.id: call.name for call in calls}
        entry["tool_calls"] = [_tool_call(number, call) for number, call in enumerate(calls)]
    yield entry


def _tool_call(number: int, call: ToolCallPart) -> Json:
    arguments = msgspec.Raw((call.arguments_json or "{}").encode())
    return {"id": call.id, "function": {"index": number, "name": call.name, "arguments": arguments}}


def _tool_result(part: ToolResultPart, names: dict[str, str]) -> Json:
    entry: Json = {"role": "tool", "content": part.text}
    if name := part.name or names.get(part.tool_call_id, ""):
        entry["tool_name"] = name
    return entry | {"tool_call_id": part.tool_call_id} if part.tool_call_id else entry
