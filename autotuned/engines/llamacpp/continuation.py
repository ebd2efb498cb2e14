"""A reply that goes on: the prompt ends with what has been said of it so far.

``body`` calls it for every request. The engine continues a conversation whose last message is the
assistant's, and yields what is new alone. Invariant: what it would lose by starting anew after a text (a
grammar that is half way through, a gap to fill) is refused.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    Message,
    RawPrompt,
    ResponseFormatKind,
    Role,
    TextPart,
    ToolCallPart,
)
from autotuned.core.errors import Unsupported


def going_on(request: GenerationRequest) -> GenerationRequest:
    """The request with the reply so far as the end of its prompt. Raises ``Unsupported``."""
    if not request.reply_so_far:
        return request
    if isinstance(request.input, RawPrompt):
        return replace(request, input=_raw(request.input, request.reply_so_far), reply_so_far="")
    if request.input.tools or request.response_format.kind is not ResponseFormatKind.TEXT:
        raise Unsupported(
            "This engine cannot go on with a reply that has tools or a response format; ask for all of it."
        )
    return replace(request, input=_chat(request.input, request.reply_so_far), reply_so_far="")


def _raw(prompt: RawPrompt, reply: str) -> RawPrompt:
    if prompt.suffix:
        raise Unsupported("This engine cannot go on filling a gap; ask for all of it.")
    return RawPrompt(prompt.prompt + reply)


def _chat(chat: ChatInput, reply: str) -> ChatInput:
    """The engine takes one message of the assistant at the end: what the client began counts as its start."""
    begun = chat.messages[-1] if chat.messages else None
    if begun is None or begun.role is not Role.ASSISTANT:
        return replace(chat, messages=(*chat.messages, Message(Role.ASSISTANT, (TextPart(reply),))))
    if any(isinstance(part, ToolCallPart) for part in begun.parts):
        raise Unsupported("This engine cannot go on with a message that calls a tool; ask for all of it.")
    last = begun.parts[-1] if begun.parts else None
    if isinstance(last, TextPart):
        parts = (*begun.parts[:-1], TextPart(last.text + reply))
    else:
        parts = (*begun.parts, TextPart(reply))
    return replace(chat, messages=(*chat.messages[:-1], replace(begun, parts=parts)))
