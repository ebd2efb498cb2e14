"""POST /v1/chat/completions: the request, into a GenerateRequest.

Invariant: a field is honoured, harmless or refused by name; none that would change the answer is
dropped. Schemas and arguments keep their bytes, because a reordered one would miss the prefix cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from autotune.v1 import chat_pb2
from autotune.v1 import inference_service_pb2 as wire

from autotune_shim.exchange import Headers, RequestInvalid
from autotune_shim.json_body import decode_body, json_text
from autotune_shim.openai.messages import ChatMessage, add_message
from autotune_shim.openai.sampling import Count, SharedFields, new_request


class OfferedFunction(msgspec.Struct):
    """A function that the model may call. ``strict`` changes nothing: engines hold calls to the schema."""

    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None


class OfferedTool(msgspec.Struct):
    """A tool of a request."""

    type: str
    function: OfferedFunction | None = None


class NamedFunction(msgspec.Struct):
    """The name of a function."""

    name: str


class NamedTool(msgspec.Struct):
    """A tool that must be called."""

    type: str
    function: NamedFunction | None = None


class JsonSchema(msgspec.Struct):
    """A schema that the answer must match; name, description and strict change nothing here."""

    schema: msgspec.Raw = msgspec.Raw()
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    """The form of the answer."""

    type: str
    json_schema: JsonSchema | None = None


class ChatCompletionRequest(SharedFields, kw_only=True, forbid_unknown_fields=True):
    """The body. Fields of type object are either harmless or refused, see below."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)]
    tools: list[OfferedTool] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    store: bool | None = None
    modalities: list[str] | None = None
    verbosity: str | None = None

    # Harmless: they name, price or cache the request elsewhere and leave the answer as it is.
    metadata: object = None
    service_tier: object = None
    safety_identifier: object = None
    prompt_cache_key: object = None
    prompt_cache_options: object = None
    prompt_cache_retention: object = None

    # Refused.
    audio: object = None
    functions: object = None
    function_call: object = None
    moderation: object = None
    prediction: object = None
    web_search_options: object = None


_REFUSED: Mapping[str, str] = {
    "audio": "only text is made here",
    "functions": "use tools instead",
    "function_call": "use tool_choice instead",
    "moderation": "nothing is moderated here",
    "prediction": "predicted outputs are not supported",
    "web_search_options": "nothing is searched on the web here",
}
_EFFORTS: Mapping[str, wire.ReasoningEffort] = {
    "none": wire.REASONING_EFFORT_NONE,
    "minimal": wire.REASONING_EFFORT_LOW,
    "low": wire.REASONING_EFFORT_LOW,
    "medium": wire.REASONING_EFFORT_MEDIUM,
    "high": wire.REASONING_EFFORT_HIGH,
    "xhigh": wire.REASONING_EFFORT_HIGH,
}
_MODES: Mapping[str, chat_pb2.ToolChoice.Mode] = {
    "auto": chat_pb2.ToolChoice.MODE_AUTO,
    "none": chat_pb2.ToolChoice.MODE_NONE,
    "required": chat_pb2.ToolChoice.MODE_REQUIRED,
}

_decoder = msgspec.json.Decoder(ChatCompletionRequest)


def read_chat_request(body: bytes, headers: Headers) -> tuple[ChatCompletionRequest, wire.GenerateRequest]:
    """The body as it was sent, and what it asks of the daemon. Raises RequestInvalid."""
    fields = decode_body(_decoder, body)
    _refuse_unsupported(fields)
    request = new_request(fields, headers)
    for index, message in enumerate(fields.messages):
        add_message(request.chat, message, f"messages[{index}]")
    _fill_tools(request.chat, fields)
    _fill_response_format(request, fields.response_format)
    if fields.max_completion_tokens is not None:
        request.max_reply_tokens = fields.max_completion_tokens
    if fields.top_logprobs is not None and not fields.logprobs:
        raise RequestInvalid("top_logprobs: set logprobs to true as well.", field="top_logprobs")
    if fields.logprobs:
        request.top_logprobs_count = fields.top_logprobs or 0
    if fields.reasoning_effort is not None:
        request.reasoning_effort = _effort(fields.reasoning_effort)
    return fields, request


def _refuse_unsupported(fields: ChatCompletionRequest) -> None:
    for name, why in _REFUSED.items():
        if getattr(fields, name) not in (None, []):
            raise _unsupported(name, why)
    if fields.store:
        raise _unsupported("store", "answers are not kept; send false or leave it out")
    if fields.modalities not in (None, ["text"]):
        raise _unsupported("modalities", 'only ["text"] is made here')
    if fields.verbosity not in (None, "medium"):
        raise _unsupported("verbosity", "say in a message how long the answer should be")


def _unsupported(name: str, why: str) -> RequestInvalid:
    return RequestInvalid(f"{name}: not supported; {why}.", field=name, code="unsupported_parameter")


def _fill_tools(chat: chat_pb2.ChatInput, fields: ChatCompletionRequest) -> None:
    for index, tool in enumerate(fields.tools or ()):
        place = f"tools[{index}]"
        if tool.type != "function" or tool.function is None:
            raise RequestInvalid(
                f'{place}.type: only tools of type "function" with a function are supported.',
                field=f"{place}.type",
                code="unsupported_value",
            )
        added = chat.tools.add()
        added.name = tool.function.name
        added.description = tool.function.description or ""
        added.parameters_json = json_text(tool.function.parameters, f"{place}.function.parameters")
    if fields.parallel_tool_calls is not None:
        chat.parallel_tool_calls = fields.parallel_tool_calls
    if fields.tool_choice is not None:
        chat.tool_choice.CopyFrom(_tool_choice(fields.tool_choice, [tool.name for tool in chat.tools]))


def _tool_choice(choice: str | NamedTool, tool_names: list[str]) -> chat_pb2.ToolChoice:
    if isinstance(choice, NamedTool):
        if choice.type != "function" or choice.function is None:
            raise RequestInvalid(
                'tool_choice.type: only "function" with a function is supported.',
                field="tool_choice.type",
                code="unsupported_value",
            )
        if choice.function.name not in tool_names:
            raise RequestInvalid(
                f'tool_choice.function.name: there is no tool "{choice.function.name}" in tools.',
                field="tool_choice.function.name",
            )
        return chat_pb2.ToolChoice(mode=chat_pb2.ToolChoice.MODE_NAMED, name=choice.function.name)
    mode = _MODES.get(choice)
    if mode is None:
        raise RequestInvalid(
            f'tool_choice: "{choice}" is none of auto, none, required or a named function.',
            field="tool_choice",
        )
    if mode == chat_pb2.ToolChoice.MODE_REQUIRED and not tool_names:
        raise RequestInvalid("tool_choice: required needs tools to choose from.", field="tool_choice")
    return chat_pb2.ToolChoice(mode=mode)


def _fill_response_format(request: wire.GenerateRequest, form: ResponseFormat | None) -> None:
    if form is None or form.type == "text":
        return
    if form.type == "json_object":
        request.response_format.kind = wire.ResponseFormat.KIND_JSON_OBJECT
        return
    if form.type != "json_schema":
        raise RequestInvalid(
            f'response_format.type: "{form.type}" is none of text, json_object, json_schema.',
            field="response_format.type",
        )
    field = "response_format.json_schema.schema"
    schema_json = json_text(form.json_schema.schema, field) if form.json_schema else ""
    if not schema_json:
        raise RequestInvalid(
            f"{field}: this field is required.", field=field, code="missing_required_parameter"
        )
    request.response_format.kind = wire.ResponseFormat.KIND_JSON_SCHEMA
    request.response_format.schema_json = schema_json


def _effort(name: str) -> wire.ReasoningEffort:
    effort = _EFFORTS.get(name)
    if effort is None:
        raise RequestInvalid(
            f'reasoning_effort: "{name}" is none of {", ".join(_EFFORTS)}.', field="reasoning_effort"
        )
    return effort
