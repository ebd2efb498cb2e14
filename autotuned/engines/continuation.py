"""A reply that was begun elsewhere and goes on: from ``reply_so_far`` to a prompt that ends with it.

``model`` asks before each generation and each prefill. The engine adds the text of a last assistant
message to the prompt as it is, so that the model sees what it had written, and answers with new text.
Invariant: what goes on is what an uncut reply would have been, or it is refused.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    Message,
    RawPrompt,
    ReasoningEffort,
    ResponseFormatKind,
    Role,
    TextPart,
)
from autotuned.core.errors import Unsupported


def with_reply_so_far(request: GenerationRequest, *, model_thinks: bool) -> GenerationRequest:
    """The request with its reply so far as the end of its prompt. Raises ``Unsupported``."""
    if not request.reply_so_far:
        return request
    if obstacle := _obstacle(request, model_thinks=model_thinks):
        raise Unsupported(f"A reply {obstacle} cannot go on after it was cut; send the request again.")
    return replace(request, input=_continued(request.input, request.reply_so_far), reply_so_far="")


def _obstacle(request: GenerationRequest, *, model_thinks: bool) -> str:
    """Why the engine would not go on as it had begun; "" where it would.

    Parsers of tools and grammars of formats begin anew with the new text, a thought is not part of the
    prompt, and a stop sequence is looked for in new text alone.
    """
    if isinstance(request.input, ChatInput) and request.input.tools:
        return "with tools"
    if request.response_format.kind is not ResponseFormatKind.TEXT:
        return "with a response format"
    if isinstance(request.input, RawPrompt):
        if request.input.suffix:
            return "with a suffix"
    elif model_thinks and request.reasoning_effort is not ReasoningEffort.NONE:
        return "of a model that thinks first"
    if any(_is_begun(sequence, request.reply_so_far) for sequence in request.stop_sequences):
        return "that ends within a stop sequence"
    return ""


def _is_begun(sequence: str, text: str) -> bool:
    return any(text.endswith(sequence[:length]) for length in range(1, len(sequence)))


def _continued(prompt: ChatInput | RawPrompt, reply: str) -> ChatInput | RawPrompt:
    if isinstance(prompt, RawPrompt):
        return replace(prompt, prompt=prompt.prompt + reply)
    last = prompt.messages[-1] if prompt.messages else None
    if last is None or last.role is not Role.ASSISTANT:
        begun = Message(Role.ASSISTANT, (TextPart(reply),))
        return replace(prompt, messages=(*prompt.messages, begun))
    # The client had begun the answer itself.
    if len(last.parts) != 1 or not isinstance(last.parts[0], TextPart):
        raise Unsupported("A begun answer of several parts cannot go on after it was cut; send one text.")
    begun = Message(Role.ASSISTANT, (TextPart(last.parts[0].text + reply),))
    return replace(prompt, messages=(*prompt.messages[:-1], begun))
