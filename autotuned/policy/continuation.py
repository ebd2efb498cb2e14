"""Whether a reply that reached the end of the context goes on in a larger one.

``services.generation`` asks when an engine has ended. Invariant: what a client limits itself is never
exceeded, and what is asked for is the very reply that was cut off, from the place where it was.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.chat import ChatInput, GenerationRequest, RawPrompt, ResponseFormatKind
from autotuned.core.generation import FinishReason


def rest_of(
    request: GenerationRequest, finish_reason: FinishReason, reply_tokens: int, text: str
) -> GenerationRequest | None:
    """The request for the rest of a reply; None where it is complete, or must end here.

    ``text`` is the whole reply so far, ``reply_tokens`` its length. A reply that ends for its length before
    its own limit has met the end of the context.
    """
    if finish_reason is not FinishReason.LENGTH or request.context_tokens is not None:
        return None
    if request.max_reply_tokens is None:
        return replace(request, reply_so_far=text)
    rest_tokens = request.max_reply_tokens - reply_tokens
    return replace(request, reply_so_far=text, max_reply_tokens=rest_tokens) if rest_tokens > 0 else None


def cannot_go_on(request: GenerationRequest, *, only_text: bool) -> str:
    """Why a reply of this request has no continuation, as a clause; empty where it has one.

    The engine starts anew after the text so far: what it keeps beside the text would be lost.
    """
    if not only_text:
        return "it holds more than text"
    if request.response_format.kind is not ResponseFormatKind.TEXT:
        return "its form is prescribed"
    if isinstance(request.input, RawPrompt) and request.input.suffix:
        return "it fills a gap"
    if isinstance(request.input, ChatInput) and request.input.tools:
        return "it may become a call of a tool"
    return ""
