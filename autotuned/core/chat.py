"""What a client asks: conversations, tools, sampling and the request around them.

Made by ``rpc`` from the wire, read by ``services``, ``policy`` and ``engines``. JSON that came
from a client (schemas, arguments) is text here and stays byte for byte what the client sent:
anything that reorders it breaks the engine's prefix cache. ``rpc`` has made sure that it is one JSON
object of bounded depth, so that engines can put it into what they send.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from autotuned.core.memory import SwapPolicy


class Role(Enum):
    """Who wrote a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class TextPart:
    """Plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An encoded image."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """What the model thought before an answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A call that the model made; ``arguments_json`` is the client's own text."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool answered."""

    tool_call_id: str
    name: str
    text: str


Part = TextPart | ImagePart | ReasoningPart | ToolCallPart | ToolResultPart


@dataclass(frozen=True, slots=True)
class Message:
    """One message: ordered parts of one author."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; ``parameters_json`` is empty for one without arguments."""

    name: str
    description: str
    parameters_json: str


class ToolChoiceMode(Enum):
    """Whether the model must call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether and what the model must call; ``name`` only with ``NAMED``."""

    mode: ToolChoiceMode = ToolChoiceMode.AUTO
    name: str = ""


@dataclass(frozen=True, slots=True)
class ChatInput:
    """A conversation with its tools; ``parallel_tool_calls`` None is the engine's default."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool | None = None


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt that meets no template; ``suffix`` is for filling in the middle."""

    prompt: str
    suffix: str = ""


class ProfileName(Enum):
    """The named sets of defaults; ``policy.profiles`` holds their values."""

    FAST = "fast"
    BALANCED = "balanced"
    QUALITY = "quality"


class ReasoningEffort(Enum):
    """How long the model thinks before it answers."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. None takes the profile's value, then the engine's."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


class ResponseFormatKind(Enum):
    """The form that an answer must have."""

    TEXT = "text"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form of an answer; ``schema_json`` only with ``JSON_SCHEMA``."""

    kind: ResponseFormatKind = ResponseFormatKind.TEXT
    schema_json: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One generation, validated. ``model`` "" is the default model, ``profile`` None the default one.

    ``max_reply_tokens`` None means until the model ends or the context is full.
    ``top_logprobs_count`` None means no log probabilities; 0 means those of the drawn tokens.
    ``swap_policy`` and ``keep_alive_seconds`` None take the configured ones; a negative keep-alive keeps
    the model until its memory is needed. ``discard`` keeps nothing of it on disk. ``client`` is who asks,
    "" where unknown. With ``reply_so_far`` the engine goes on from there and yields what is new.
    ``engine`` "" lets the daemon choose.
    """

    model: str
    input: ChatInput | RawPrompt
    sampling: Sampling = field(default_factory=Sampling)
    max_reply_tokens: int | None = None
    stop_sequences: tuple[str, ...] = ()
    response_format: ResponseFormat = ResponseFormat()
    reasoning_effort: ReasoningEffort | None = None
    top_logprobs_count: int | None = None
    profile: ProfileName | None = None
    context_tokens: int | None = None
    swap_policy: SwapPolicy | None = None
    keep_alive_seconds: float | None = None
    discard: bool = False
    client: str = ""
    reply_so_far: str = ""
    engine: str = ""
