"""Wire to core: conversations with their tools, checked.

Called by ``request`` and ``inference``. Invariant: JSON that comes out is one object of bounded depth,
byte for byte what the client sent.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from autotune.v1 import chat_pb2

from autotuned.core.chat import (
    ChatInput,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceMode,
    ToolResultPart,
)
from autotuned.core.errors import FieldInvalid
from autotuned.rpc.fields import known

DEEPEST_JSON_LEVELS = 256

_ROLES: dict[int, Role] = {
    chat_pb2.ROLE_SYSTEM: Role.SYSTEM,
    chat_pb2.ROLE_USER: Role.USER,
    chat_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    chat_pb2.ROLE_TOOL: Role.TOOL,
}
_CHOICES: dict[int, ToolChoiceMode] = {
    chat_pb2.ToolChoice.MODE_UNSPECIFIED: ToolChoiceMode.AUTO,
    chat_pb2.ToolChoice.MODE_AUTO: ToolChoiceMode.AUTO,
    chat_pb2.ToolChoice.MODE_NONE: ToolChoiceMode.NONE,
    chat_pb2.ToolChoice.MODE_REQUIRED: ToolChoiceMode.REQUIRED,
    chat_pb2.ToolChoice.MODE_NAMED: ToolChoiceMode.NAMED,
}
# Which roles may carry which part.
_PART_ROLES = {
    "reasoning": {Role.ASSISTANT},
    "tool_call": {Role.ASSISTANT},
    "tool_result": {Role.TOOL},
    "image": {Role.USER, Role.TOOL},
}


def chat_input(chat: chat_pb2.ChatInput) -> ChatInput:
    """A conversation; FieldInvalid names the message and the part that are wrong."""
    if not chat.messages:
        raise FieldInvalid("chat.messages", "the list is empty; send at least one message.")
    return chat_beginning(chat)


def chat_beginning(chat: chat_pb2.ChatInput) -> ChatInput:
    """What conversations begin with, which may be nothing; else like ``chat_input``."""
    tools = tuple(_tool(index, tool) for index, tool in enumerate(chat.tools))
    return ChatInput(
        messages=tuple(_message(index, message) for index, message in enumerate(chat.messages)),
        tools=tools,
        tool_choice=_tool_choice(chat.tool_choice, {tool.name for tool in tools}),
        parallel_tool_calls=chat.parallel_tool_calls if chat.HasField("parallel_tool_calls") else None,
    )


def _message(index: int, message: chat_pb2.Message) -> Message:
    path = f"chat.messages[{index}]"
    role = _ROLES.get(message.role)
    if role is None:
        raise FieldInvalid(f"{path}.role", "it is missing; use system, user, assistant or tool.")
    if role is Role.TOOL and not message.parts:
        raise FieldInvalid(f"{path}.parts", "a message of role tool is empty; send a tool_result part.")
    parts = tuple(_part(f"{path}.parts[{number}]", part, role) for number, part in enumerate(message.parts))
    return Message(role, parts)


def _part(path: str, part: chat_pb2.Part, role: Role) -> Part:
    kind = part.WhichOneof("content")
    if role not in _PART_ROLES.get(kind or "", set(Role)):
        raise FieldInvalid(path, f"a message of role {role.value} cannot carry a {kind} part.")
    if role is Role.TOOL and kind == "text":
        raise FieldInvalid(path, "a message of role tool carries tool_result parts, which name their call.")
    match kind:
        case "text":
            return TextPart(part.text)
        case "reasoning":
            return ReasoningPart(part.reasoning)
        case "image":
            return ImagePart(part.image.data, part.image.media_type)
        case "tool_call":
            call = part.tool_call
            if not call.name:
                raise FieldInvalid(f"{path}.tool_call.name", "it is empty; name the tool.")
            if call.arguments_json:
                check_json_object(f"{path}.tool_call.arguments_json", call.arguments_json)
            return ToolCallPart(call.id, call.name, call.arguments_json)
        case "tool_result":
            result = part.tool_result
            return ToolResultPart(result.tool_call_id, result.name, result.text)
        case _:
            raise FieldInvalid(path, "it is empty; set its content.")


def _tool(index: int, tool: chat_pb2.Tool) -> Tool:
    path = f"chat.tools[{index}]"
    if not tool.name:
        raise FieldInvalid(f"{path}.name", "it is empty; name the tool.")
    if tool.parameters_json:
        check_json_object(f"{path}.parameters_json", tool.parameters_json)
    return Tool(tool.name, tool.description, tool.parameters_json)


def _tool_choice(choice: chat_pb2.ToolChoice, tools: Collection[str]) -> ToolChoice:
    mode = known("chat.tool_choice.mode", _CHOICES, choice.mode)
    if mode is ToolChoiceMode.NAMED and choice.name not in tools:
        raise FieldInvalid("chat.tool_choice.name", f'there is no tool "{choice.name}" in chat.tools.')
    if mode is not ToolChoiceMode.NAMED and choice.name:
        raise FieldInvalid("chat.tool_choice.name", "a name needs mode MODE_NAMED; set it or leave it out.")
    if mode is ToolChoiceMode.REQUIRED and not tools:
        raise FieldInvalid("chat.tool_choice.mode", "a tool is required, but chat.tools is empty.")
    return ToolChoice(mode, choice.name)


def check_json_object(path: str, text: str) -> None:
    """Engines get the text as it is: one JSON object, nothing beside it, too shallow to overflow a stack."""
    try:
        too_deep = _is_deeper(msgspec.json.decode(text, type=dict[str, Any]), DEEPEST_JSON_LEVELS)
    except RecursionError:
        too_deep = True
    except msgspec.DecodeError as error:
        raise FieldInvalid(path, f"it is not a JSON object ({error}); send JSON text.") from None
    if too_deep:
        raise FieldInvalid(path, f"it is nested too deeply; use at most {DEEPEST_JSON_LEVELS} levels.")


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists lie in each other more than so many times."""
    containers = [value]
    for _ in range(levels):
        inside = (each.values() if isinstance(each, dict) else each for each in containers)
        containers = [value for values in inside for value in values if isinstance(value, (dict, list))]
        if not containers:
            return False
    return True
