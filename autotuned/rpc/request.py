"""Wire to core: a ``GenerateRequest`` checked and turned into a ``GenerationRequest``.

Invariant: what comes out is valid, and every field that was set is either in it or was refused:
nothing that a client asked for is dropped in silence.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, TypeVar

import msgspec
from autotune.v1 import chat_pb2, inference_service_pb2

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    ImagePart,
    Message,
    Part,
    ProfileName,
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

_Value = TypeVar("_Value")
_Format = inference_service_pb2.ResponseFormat

PROFILES: dict[int, ProfileName | None] = {
    inference_service_pb2.PROFILE_UNSPECIFIED: None,
    inference_service_pb2.PROFILE_FAST: ProfileName.FAST,
    inference_service_pb2.PROFILE_BALANCED: ProfileName.BALANCED,
    inference_service_pb2.PROFILE_QUALITY: ProfileName.QUALITY,
}
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
_FORMATS: dict[int, ResponseFormatKind] = {
    _Format.KIND_UNSPECIFIED: ResponseFormatKind.TEXT,
    _Format.KIND_TEXT: ResponseFormatKind.TEXT,
    _Format.KIND_JSON_OBJECT: ResponseFormatKind.JSON_OBJECT,
    _Format.KIND_JSON_SCHEMA: ResponseFormatKind.JSON_SCHEMA,
}
_EFFORTS: dict[int, ReasoningEffort | None] = {
    inference_service_pb2.REASONING_EFFORT_UNSPECIFIED: None,
    inference_service_pb2.REASONING_EFFORT_NONE: ReasoningEffort.NONE,
    inference_service_pb2.REASONING_EFFORT_LOW: ReasoningEffort.LOW,
    inference_service_pb2.REASONING_EFFORT_MEDIUM: ReasoningEffort.MEDIUM,
    inference_service_pb2.REASONING_EFFORT_HIGH: ReasoningEffort.HIGH,
}
# Which roles may carry which part.
_PART_ROLES = {
    "reasoning": {Role.ASSISTANT},
    "tool_call": {Role.ASSISTANT},
    "tool_result": {Role.TOOL},
    "image": {Role.USER, Role.TOOL},
}
# The smallest and the largest value of each sampling field, both allowed.
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 5.0),
    "top_p": (1e-6, 1.0),
    "top_k": (0, 1_000_000),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (1e-6, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
MOST_LOGPROBS = 20
MOST_STOP_SEQUENCES = 64
LARGEST_BIAS = 100.0
DEEPEST_JSON_LEVELS = 256
_LARGEST_WRITTEN_OUT = 1e12


def generation_request(
    request: inference_service_pb2.GenerateRequest, engines: Collection[str]
) -> GenerationRequest:
    """Raises FieldInvalid for a malformed field and Unsupported for what this daemon cannot do."""
    _refuse_unsupported(request, engines)
    return GenerationRequest(
        model=request.model,
        input=_input(request),
        sampling=_sampling(request.sampling),
        max_reply_tokens=_positive(request, "max_reply_tokens"),
        stop_sequences=_stop_sequences(request),
        response_format=_response_format(request.response_format),
        reasoning_effort=_known("reasoning_effort", _EFFORTS, request.reasoning_effort),
        top_logprobs_count=_top_logprobs(request),
        profile=profile_name(request.profile),
        context_tokens=_positive(request, "context_tokens"),
    )


def profile_name(value: int) -> ProfileName | None:
    """The profile of a wire value; None is the daemon's default."""
    return _known("profile", PROFILES, value)


def chat_input(chat: chat_pb2.ChatInput) -> ChatInput:
    """A conversation; FieldInvalid names the message and the part that are wrong."""
    if not chat.messages:
        raise FieldInvalid("chat.messages", "the list is empty; send at least one message.")
    tools = tuple(_tool(index, tool) for index, tool in enumerate(chat.tools))
    return ChatInput(
        messages=tuple(_message(index, message) for index, message in enumerate(chat.messages)),
        tools=tools,
        tool_choice=_tool_choice(chat.tool_choice, {tool.name for tool in tools}),
        parallel_tool_calls=chat.parallel_tool_calls if chat.HasField("parallel_tool_calls") else None,
    )


def _refuse_unsupported(request: inference_service_pb2.GenerateRequest, engines: Collection[str]) -> None:
    if request.engine and request.engine not in engines:
        known = ", ".join(sorted(engines))
        raise FieldInvalid("engine", f'there is no engine "{request.engine}"; use one of: {known}.')
    if request.WhichOneof("input") == "continuation":
        raise Unsupported("Stored conversations are not supported yet; send the whole conversation as chat.")
    unsupported = {
        "priority": request.priority
        not in {
            inference_service_pb2.PRIORITY_UNSPECIFIED,
            inference_service_pb2.PRIORITY_NORMAL,
        },
        "swap_policy": request.swap_policy
        not in {
            inference_service_pb2.SWAP_POLICY_UNSPECIFIED,
            inference_service_pb2.SWAP_POLICY_ALLOW,
        },
        "keep_alive_duration": request.HasField("keep_alive_duration"),
        "store_policy": request.store_policy
        not in {
            inference_service_pb2.STORE_POLICY_UNSPECIFIED,
            inference_service_pb2.STORE_POLICY_DISCARD,
        },
        "recall_policy": request.recall_policy
        not in {
            inference_service_pb2.RECALL_POLICY_UNSPECIFIED,
            inference_service_pb2.RECALL_POLICY_OMIT,
        },
    }
    for field, asked in unsupported.items():
        if asked:
            raise Unsupported(f"{field} is not supported yet; leave the field out.", field=field)


def _input(request: inference_service_pb2.GenerateRequest) -> ChatInput | RawPrompt:
    match request.WhichOneof("input"):
        case "chat":
            return chat_input(request.chat)
        case "raw_prompt":
            if not request.raw_prompt.prompt and not request.raw_prompt.suffix:
                raise FieldInvalid("raw_prompt.prompt", "the prompt is empty; send some text.")
            return RawPrompt(request.raw_prompt.prompt, request.raw_prompt.suffix)
        case _:
            raise FieldInvalid("input", "it is missing; set chat or raw_prompt.")


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
                _check_json_object(f"{path}.tool_call.arguments_json", call.arguments_json)
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
        _check_json_object(f"{path}.parameters_json", tool.parameters_json)
    return Tool(tool.name, tool.description, tool.parameters_json)


def _tool_choice(choice: chat_pb2.ToolChoice, tools: Collection[str]) -> ToolChoice:
    mode = _known("chat.tool_choice.mode", _CHOICES, choice.mode)
    if mode is ToolChoiceMode.NAMED and choice.name not in tools:
        raise FieldInvalid("chat.tool_choice.name", f'there is no tool "{choice.name}" in chat.tools.')
    if mode is not ToolChoiceMode.NAMED and choice.name:
        raise FieldInvalid("chat.tool_choice.name", "a name needs mode MODE_NAMED; set it or leave it out.")
    if mode is ToolChoiceMode.REQUIRED and not tools:
        raise FieldInvalid("chat.tool_choice.mode", "a tool is required, but chat.tools is empty.")
    return ToolChoice(mode, choice.name)


def _sampling(sampling: inference_service_pb2.Sampling) -> Sampling:
    return Sampling(
        temperature=_ranged(sampling, "temperature"),
        top_p=_ranged(sampling, "top_p"),
        top_k=_ranged_int(sampling, "top_k"),
        min_p=_ranged(sampling, "min_p"),
        seed=sampling.seed if sampling.HasField("seed") else None,
        repeat_penalty=_ranged(sampling, "repeat_penalty"),
        presence_penalty=_ranged(sampling, "presence_penalty"),
        frequency_penalty=_ranged(sampling, "frequency_penalty"),
        logit_bias=_logit_bias(sampling),
    )


def _ranged(sampling: inference_service_pb2.Sampling, field: str) -> float | None:
    if not sampling.HasField(field):
        return None
    value = float(getattr(sampling, field))
    least, most = _RANGES[field]
    if math.isnan(value) or not least <= value <= most:
        above_zero = least == 1e-6  # noqa: PLR2004 - the marker of an open lower bound
        lower = "above 0" if above_zero else _number(least)
        raise FieldInvalid(
            f"sampling.{field}", f"{_number(value)} is out of range; use {lower} to {_number(most)}."
        )
    return value


def _ranged_int(sampling: inference_service_pb2.Sampling, field: str) -> int | None:
    value = _ranged(sampling, field)
    return None if value is None else int(getattr(sampling, field))


def _number(value: float) -> str:
    """All digits of a whole number: a limit that is rounded could not be kept."""
    whole = math.isfinite(value) and value == int(value) and abs(value) < _LARGEST_WRITTEN_OUT
    return f"{int(value):,}" if whole else f"{value:g}"


def _logit_bias(sampling: inference_service_pb2.Sampling) -> tuple[tuple[int, float], ...]:
    for token, bias in sampling.logit_bias.items():
        if token < 0 or math.isnan(bias) or abs(bias) > LARGEST_BIAS:
            raise FieldInvalid(
                "sampling.logit_bias",
                f"{token}: {bias:g} is out of range; use ids from 0 and -100 to 100.",
            )
    return tuple(sorted(sampling.logit_bias.items()))


def _positive(request: inference_service_pb2.GenerateRequest, field: str) -> int | None:
    if not request.HasField(field):
        return None
    value = int(getattr(request, field))
    if value < 1:
        raise FieldInvalid(field, f"{value} is out of range; use 1 or more.")
    return value


def _stop_sequences(request: inference_service_pb2.GenerateRequest) -> tuple[str, ...]:
    if len(request.stop_sequences) > MOST_STOP_SEQUENCES:
        raise FieldInvalid("stop_sequences", f"there are more than {MOST_STOP_SEQUENCES}; send fewer.")
    if not all(request.stop_sequences):
        raise FieldInvalid("stop_sequences", "one is empty; send texts of at least one character.")
    return tuple(request.stop_sequences)


def _response_format(wanted: inference_service_pb2.ResponseFormat) -> ResponseFormat:
    kind = _known("response_format.kind", _FORMATS, wanted.kind)
    if kind is ResponseFormatKind.JSON_SCHEMA:
        _check_json_object("response_format.schema_json", wanted.schema_json)
    elif wanted.schema_json:
        raise FieldInvalid("response_format.schema_json", "a schema needs kind KIND_JSON_SCHEMA.")
    return ResponseFormat(kind, wanted.schema_json)


def _top_logprobs(request: inference_service_pb2.GenerateRequest) -> int | None:
    if not request.HasField("top_logprobs_count"):
        return None
    if not 0 <= request.top_logprobs_count <= MOST_LOGPROBS:
        raise FieldInvalid(
            "top_logprobs_count", f"{request.top_logprobs_count} is out of range; use 0 to {MOST_LOGPROBS}."
        )
    return request.top_logprobs_count


def _check_json_object(path: str, text: str) -> None:
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


def _known(field: str, values: dict[int, _Value], value: int) -> _Value:
    if value not in values:
        raise FieldInvalid(field, f"{value} is not a known value; use one of the enum's.")
    return values[value]
