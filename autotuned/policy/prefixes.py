"""The names of KV prefixes, and which saved one serves a prompt best.

``services.prefixes`` calls it for every request. A name is a hash over everything that was sent up to a
message boundary: the tools, the messages, what decides how the template renders them, and what the
state itself depends on (the namespace). Text that came as JSON is hashed byte for byte.
Invariant: two prompts with an equal boundary name begin with the same tokens and the same state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import takewhile

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    ImagePart,
    Message,
    Part,
    RawPrompt,
    ReasoningPart,
    Role,
    TextPart,
    Tool,
    ToolCallPart,
    ToolResultPart,
)
from autotuned.core.model import ModelFacts
from autotuned.core.plan import LoadShape
from autotuned.core.prefix import PrefixChain, SavedPrefix
from autotuned.policy.kv import padded_context

RAW_CHUNK_BYTES = 512
RAW_NAME_BYTES = 1024
_NAME_BYTES = 16


def namespace(facts: ModelFacts, shape: LoadShape, engine_build: str) -> str:
    """What the state of equal texts depends on: weights, template, types of K and V, flash attention, build.

    Context and batch are not in it: a state restores into a larger context, unless positions are encoded
    otherwise there. Neither are the slots, as long as they share one stream of cells: engines do not
    restore a state into another number of streams.
    """
    streams = 1 if shape.kv_unified else shape.slots_count
    is_beyond_switch = 0 < facts.position_switch_tokens < padded_context(shape.context_tokens)
    return _digest(
        facts.digest,
        facts.chat_template,
        shape.key_cache_type.value,
        shape.value_cache_type.value,
        "flash attention" if shape.flash_attention else "plain attention",
        f"streams {streams}",
        "long positions" if is_beyond_switch else "",
        engine_build,
    )


def chain(request: GenerationRequest, namespace: str) -> PrefixChain:
    """The names of the prompt's beginnings, in one pass over it.

    A chat has a boundary after each message. A raw prompt has one after each 512 bytes; what follows
    the last of them has no name, and neither has what the model answers. A reply so far, from which the
    model goes on, counts as the last message, or as the end of the raw prompt.
    """
    if isinstance(request.input, RawPrompt):
        return _raw_chain(request.input, request.reply_so_far, namespace, discard=request.discard)
    chat = request.input
    messages = chat.messages
    if request.reply_so_far:
        messages += (Message(Role.ASSISTANT, (TextPart(request.reply_so_far),)),)
    rendering = _utf8(f"{namespace} {_options(request, chat)}")
    running = _Running()
    running.add(_tools(chat.tools))
    boundaries: list[str] = []
    weights: list[int] = []
    conversation = ""
    last_of_beginning = _beginning_count(chat.messages) - 1
    for index, message in enumerate(messages):
        running.add(_message(message))
        boundaries.append(running.name(rendering))
        weights.append(running.text_bytes)
        if index == last_of_beginning:
            conversation = running.name(b"conversation")
    conversation = conversation or running.name(b"conversation")  # tools alone
    return PrefixChain(conversation, tuple(boundaries), tuple(weights), request.discard)


def conversation_name(prompt: ChatInput | RawPrompt) -> str:
    """The name of what prompts that go on from each other share.

    It is the tools and all messages up to the first one of the user, or the first KiB of a raw prompt.
    """
    running = _Running()
    if isinstance(prompt, RawPrompt):
        running.add(_utf8(prompt.prompt[:RAW_NAME_BYTES])[:RAW_NAME_BYTES])
        return running.name(b"raw conversation")
    running.add(_tools(prompt.tools))
    for message in prompt.messages[: _beginning_count(prompt.messages)]:
        running.add(_message(message))
    return running.name(b"conversation")


def shared_count(first: Sequence[str], second: Sequence[str]) -> int:
    """How many boundaries two prompts have in common, from the first on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def boundary_tokens(weights: Sequence[int], prompt_tokens: int) -> tuple[int, ...]:
    """Tokens up to each boundary, estimated by its share of the bytes; exact for a chat's last one."""
    total = max(weights[-1], 1) if weights else 1
    return tuple(prompt_tokens * weight // total for weight in weights)


def best_match(
    boundaries: Sequence[str], saved_by_boundary: Mapping[str, Mapping[str, SavedPrefix]]
) -> tuple[SavedPrefix, int] | None:
    """The saved prefix that shares the longest beginning, and the index of the last shared boundary.

    ``saved_by_boundary`` has those that hold a boundary, by its name and then by their id. Of several it
    is the one that is the least to read: the others hold more that is of no use here.
    """
    for index in range(len(boundaries) - 1, -1, -1):
        if candidates := saved_by_boundary.get(boundaries[index]):
            return min(candidates.values(), key=lambda saved: (saved.bytes_count, -saved.last_used_at)), index
    return None


def superseded(
    boundaries: Sequence[str], saved_by_last_boundary: Mapping[str, Mapping[str, SavedPrefix]]
) -> tuple[SavedPrefix, ...]:
    """The saved prefixes that a state with these boundaries contains: earlier turns of it, or its equals."""
    return tuple(
        saved for boundary in boundaries for saved in saved_by_last_boundary.get(boundary, {}).values()
    )


def _raw_chain(prompt: RawPrompt, reply_so_far: str, namespace: str, *, discard: bool) -> PrefixChain:
    text = _utf8(prompt.prompt + reply_so_far)
    # Where the engine puts the text after the gap is its own business: it counts as part of the start.
    rendering = _utf8(f"{namespace} raw {_digest(prompt.suffix) if prompt.suffix else ''}")
    ends = range(RAW_CHUNK_BYTES, len(text) + 1, RAW_CHUNK_BYTES) or range(len(text), len(text) + 1)
    running = _Running()
    boundaries = []
    for end in ends:
        running.add(text[running.text_bytes : end])
        boundaries.append(running.name(rendering))
    return PrefixChain(conversation_name(prompt), tuple(boundaries), tuple(ends), discard)


def _beginning_count(messages: Sequence[Message]) -> int:
    """Messages up to the first one of the user; the first alone where there is none."""
    first = next((index for index, message in enumerate(messages) if message.role is Role.USER), 0)
    return first + 1


def _options(request: GenerationRequest, chat: ChatInput) -> str:
    """Everything else that a template may render differently."""
    effort = request.reasoning_effort.value if request.reasoning_effort else ""
    answer = request.response_format
    options: tuple[object, ...] = (effort, answer.kind.value, answer.schema_json)
    if chat.tools:
        choice = chat.tool_choice
        options = (*options, choice.mode.value, choice.name, chat.parallel_tool_calls)
    return repr(options)


class _Running:
    """A hash over all that was added so far."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=_NAME_BYTES)
        self.text_bytes = 0

    def add(self, data: bytes) -> None:
        self._hash.update(data)
        self.text_bytes += len(data)

    def name(self, rendering: bytes) -> str:
        """The name of everything so far, rendered in this way."""
        named = self._hash.copy()
        named.update(rendering)
        return named.hexdigest()


def _digest(*texts: str) -> str:
    framed = "".join([_framed(text) for text in texts])
    return hashlib.blake2b(_utf8(framed), digest_size=_NAME_BYTES).hexdigest()


def _framed(text: str) -> str:
    """A text after its length, so that none can pose as two."""
    return f"{len(text)}:{text}"


def _tools(tools: Sequence[Tool]) -> bytes:
    pieces = [
        f"tool {_framed(tool.name)}{_framed(tool.description)}{_framed(tool.parameters_json)}"
        for tool in tools
    ]
    return _utf8("".join(pieces))


def _message(message: Message) -> bytes:
    """One message in one piece: conversations have hundreds of short ones."""
    parts = "".join([_part(part) for part in message.parts])
    return _utf8(f"message {message.role.value} {parts}")


def _part(part: Part) -> str:
    match part:
        case TextPart():
            return f"text {_framed(part.text)}"
        case ReasoningPart():
            return f"reasoning {_framed(part.text)}"
        case ToolCallPart():
            return f"call {_framed(part.id)}{_framed(part.name)}{_framed(part.arguments_json)}"
        case ToolResultPart():
            return f"result {_framed(part.tool_call_id)}{_framed(part.name)}{_framed(part.text)}"
        case ImagePart():
            return f"image {_framed(part.media_type)}{hashlib.blake2b(part.data).hexdigest()}"


def _utf8(text: str) -> bytes:
    """Also of what is no valid Unicode: refusing it is not the business of names."""
    return text.encode("utf-8", "surrogatepass")
