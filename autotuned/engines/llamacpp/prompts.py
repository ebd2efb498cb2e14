"""The latest prompts of a worker's conversations, with their replies.

``model`` remembers them: a state that the engine keeps beside its slots can only be had back by asking
for its prompt again. Invariant: bounded in number and in bytes, whatever clients send.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotuned.core.chat import GenerationRequest

MOST_PROMPTS = 64
MOST_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class _Prompt:
    request: GenerationRequest
    bytes_count: int


class Prompts:
    """Prompts by conversation; the one that was used longest ago is forgotten first."""

    def __init__(self) -> None:
        self._prompts: dict[str, _Prompt] = {}
        self._bytes_count = 0

    def of(self, conversation: str) -> GenerationRequest | None:
        """The latest prompt, with its reply as ``reply_so_far``; None where it is not known."""
        known = self._prompts.get(conversation)
        return known.request if known else None

    def add(self, conversation: str, request: GenerationRequest, bytes_count: int) -> None:
        """A prompt that is in a slot now. One without a conversation belongs to nobody."""
        self._forget(conversation)
        if not conversation:
            return
        self._prompts[conversation] = _Prompt(request, bytes_count)
        self._bytes_count += bytes_count
        while self._bytes_count > MOST_BYTES or len(self._prompts) > MOST_PROMPTS:
            self._forget(next(iter(self._prompts)))

    def add_reply(self, conversation: str, text: str) -> None:
        """The reply to the latest prompt is complete."""
        if known := self._prompts.get(conversation):
            self.add(conversation, replace(known.request, reply_so_far=text), known.bytes_count + len(text))

    def _forget(self, conversation: str) -> None:
        if known := self._prompts.pop(conversation, None):
            self._bytes_count -= known.bytes_count
