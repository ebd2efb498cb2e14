"""Stop sequences, for servers that do not find them reliably.

``model`` puts one before the events of an answer. Text that may be the beginning of a sequence waits
until it is known not to be. Invariant: what was let through has no stop sequence in it, and is else
what came.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from autotuned.core.generation import EngineEvent, TextDelta


class StopFilter:
    """The events of one answer up to its first stop sequence."""

    def __init__(self, sequences: tuple[str, ...]) -> None:
        self.stopped = False
        self._sequences = [sequence for sequence in sequences if sequence]
        self._held: list[TextDelta] = []

    def feed(self, event: EngineEvent) -> Iterator[EngineEvent]:
        """What may go on; nothing more once it has ``stopped``."""
        if not isinstance(event, TextDelta):
            yield from self._held
            self._held.clear()
            yield event
            return
        self._held.append(event)
        text = "".join(delta.text for delta in self._held)
        found = [at for sequence in self._sequences if (at := text.find(sequence)) >= 0]
        if found:
            self.stopped = True
            yield from self._cut(min(found))
            return
        free = len(text) - self._begun(text)
        while self._held and len(self._held[0].text) <= free:
            delta = self._held.pop(0)
            free -= len(delta.text)
            yield delta

    def _begun(self, text: str) -> int:
        """Characters at the end of the text that may be the beginning of a sequence."""
        return max(
            (
                length
                for sequence in self._sequences
                for length in range(1, len(sequence))
                if text.endswith(sequence[:length])
            ),
            default=0,
        )

    def _cut(self, length: int) -> Iterator[TextDelta]:
        """What was held, up to so many characters."""
        for delta in self._held:
            if length <= 0:
                break
            yield delta if len(delta.text) <= length else replace(delta, text=delta.text[:length])
            length -= len(delta.text)
        self._held.clear()
