"""Chat messages as OpenAI writes them, into messages of the wire.

A message may carry fields that are not named here: clients send answers back as they got them,
with whatever their libraries add. What would change the answer and cannot be honoured is refused.
The participant's ``name`` is read for tool results alone; no local model's template knows it.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping

import msgspec
from autotune.v1 import chat_pb2 as wire

from autotune_shim.exchange import RequestInvalid


class ImageUrl(msgspec.Struct):
    """An image; ``url`` must be a data: URL."""

    url: str


class ContentPart(msgspec.Struct):
    """A part of a message's content. Which field is set goes with ``type``."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | None = None


class CalledFunction(msgspec.Struct):
    """What the model called; ``arguments`` is JSON text."""

    name: str
    arguments: str


class CalledTool(msgspec.Struct):
    """A call in an assistant's message."""

    id: str
    function: CalledFunction
    type: str = "function"


class ChatMessage(msgspec.Struct):
    """One message of a request."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    audio: object = None
    function_call: object = None


_ROLES: Mapping[str, wire.Role] = {
    "system": wire.ROLE_SYSTEM,
    "developer": wire.ROLE_SYSTEM,
    "user": wire.ROLE_USER,
    "assistant": wire.ROLE_ASSISTANT,
    "tool": wire.ROLE_TOOL,
}


def add_message(chat: wire.ChatInput, source: ChatMessage, place: str) -> None:
    """Appends ``source``, which the request has at ``place``. Raises RequestInvalid."""
    role = _ROLES.get(source.role)
    if role is None:
        raise _bad_role(source.role, f"{place}.role")
    if source.audio is not None or source.function_call is not None:
        field = f"{place}.{'audio' if source.audio is not None else 'function_call'}"
        raise RequestInvalid(
            f"{field}: not supported; send text and tool_calls.", field=field, code="unsupported_parameter"
        )
    if source.tool_calls and role != wire.ROLE_ASSISTANT:
        field = f"{place}.tool_calls"
        raise RequestInvalid(f"{field}: only a message of the assistant calls tools.", field=field)
    message = chat.messages.add(role=role)
    if role == wire.ROLE_TOOL:
        _add_tool_result(message, source, place)
        return
    if role == wire.ROLE_ASSISTANT:
        reasoning = source.reasoning_content or source.reasoning
        if reasoning:
            message.parts.add(reasoning=reasoning)
    _add_content(message, source.content, f"{place}.content")
    if source.refusal:
        message.parts.add(text=source.refusal)
    for index, call in enumerate(source.tool_calls or ()):
        if call.type != "function":
            field = f"{place}.tool_calls[{index}].type"
            raise RequestInvalid(
                f'{field}: only "function" is supported.', field=field, code="unsupported_value"
            )
        part = message.parts.add().tool_call
        part.id = call.id
        part.name = call.function.name
        part.arguments_json = call.function.arguments


def _add_content(message: wire.Message, content: str | list[ContentPart] | None, place: str) -> None:
    if isinstance(content, str):
        if content:
            message.parts.add(text=content)
        return
    for index, part in enumerate(content or ()):
        field = f"{place}[{index}]"
        if part.type == "image_url":
            if message.role != wire.ROLE_USER:
                raise RequestInvalid(f"{field}: only a message of the user holds images.", field=field)
            message.parts.add(image=_image(part, field))
        else:
            message.parts.add(text=_part_text(part, field))


def _add_tool_result(message: wire.Message, source: ChatMessage, place: str) -> None:
    if not source.tool_call_id:
        field = f"{place}.tool_call_id"
        raise RequestInvalid(
            f"{field}: a message of a tool must name the call that it answers.",
            field=field,
            code="missing_required_parameter",
        )
    content = source.content
    if not isinstance(content, str):
        content = "".join(
            _part_text(part, f"{place}.content[{index}]") for index, part in enumerate(content or ())
        )
    result = message.parts.add().tool_result
    result.tool_call_id = source.tool_call_id
    result.name = source.name or ""
    result.text = content


def _part_text(part: ContentPart, field: str) -> str:
    text = {"text": part.text, "refusal": part.refusal}.get(part.type)
    if text is not None:
        return text
    if part.type in {"text", "refusal"}:
        raise RequestInvalid(
            f"{field}.{part.type}: this field is required.",
            field=f"{field}.{part.type}",
            code="missing_required_parameter",
        )
    raise RequestInvalid(
        f'{field}.type: "{part.type}" is not supported here; send text, or image_url from the user.',
        field=f"{field}.type",
        code="unsupported_value",
    )


def _image(part: ContentPart, field: str) -> wire.Image:
    """The bytes of a data: URL such as "data:image/png;base64,iVBO..."; nothing is ever fetched."""
    field = f"{field}.image_url.url"
    head, comma, encoded = (part.image_url.url if part.image_url else "").partition(",")
    if not head.startswith("data:") or not head.endswith(";base64") or not comma:
        raise RequestInvalid(
            f"{field}: images are not fetched; send the bytes as data:image/png;base64,...", field=field
        )
    try:
        data = binascii.a2b_base64(encoded, strict_mode=True)
    except (binascii.Error, ValueError):
        raise RequestInvalid(f"{field}: the base64 text is damaged.", field=field) from None
    return wire.Image(data=data, media_type=head.removeprefix("data:").removesuffix(";base64"))


def _bad_role(role: str, field: str) -> RequestInvalid:
    if role == "function":
        return RequestInvalid(
            f'{field}: functions are not supported; use tools and the role "tool".',
            field=field,
            code="unsupported_value",
        )
    return RequestInvalid(f'{field}: "{role}" is none of {", ".join(_ROLES)}.', field=field)
