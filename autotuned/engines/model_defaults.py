"""What a model's name brings besides its weights: what is said before all, and how tokens are drawn.

``stores.ollama`` reads it, the engine that runs the file fills requests with it, as Ollama does.
Invariant: what a request says itself is never changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from autotuned.core.chat import ChatInput, GenerationRequest, Message, Role, Sampling, TextPart


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefaults:
    """``system`` is the prompt of conversations without one of their own; ``messages`` come before them all.

    ``sampling`` and ``stop_sequences`` are for requests that do not say.
    """

    system: str = ""
    messages: tuple[Message, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    stop_sequences: tuple[str, ...] = ()

    def filled(self, request: GenerationRequest) -> GenerationRequest:
        """A request with all that it leaves open; a raw prompt stays the prompt that it is."""
        return replace(
            request,
            input=self.begun(request.input) if isinstance(request.input, ChatInput) else request.input,
            sampling=self._sampling(request.sampling),
            stop_sequences=request.stop_sequences or self.stop_sequences,
        )

    def begun(self, chat: ChatInput) -> ChatInput:
        """A conversation with what comes before it."""
        messages = (*self.messages, *chat.messages)
        if self.system and (not chat.messages or chat.messages[0].role is not Role.SYSTEM):
            messages = (Message(Role.SYSTEM, (TextPart(self.system),)), *messages)
        return replace(chat, messages=messages)

    def _sampling(self, sampling: Sampling) -> Sampling:
        missing = {
            each.name: getattr(self.sampling, each.name)
            for each in fields(Sampling)
            if getattr(sampling, each.name) in {None, ()}
        }
        return replace(sampling, **missing)


NO_DEFAULTS = ModelDefaults()
