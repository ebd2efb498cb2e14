"""Stop sequences: where a text ends, and what of it must not be given out yet.

``generation`` feeds every piece of text. Invariant: no part of a stop sequence is ever given out, unless
the text goes on in a way that makes it none.
"""

from __future__ import annotations

from collections.abc import Iterable


class StopSequences:
    """The stop sequences of one request."""

    def __init__(self, sequences: Iterable[str]) -> None:
        self._sequences = tuple(sequence for sequence in sequences if sequence)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """What may be given out of the text so far. After ``found`` nothing may."""
        if not self._sequences:
            return text
        whole = self._held + text
        places = [place for sequence in self._sequences if (place := whole.find(sequence)) >= 0]
        if places:
            self.found = True
            self._held = ""
            return whole[: min(places)]
        held = max((begun(whole, sequence) for sequence in self._sequences), default=0)
        self._held = whole[len(whole) - held :]
        return whole[: len(whole) - held]

    def rest(self) -> str:
        """What was held back of a text that is over."""
        held, self._held = self._held, ""
        return held


def begun(text: str, sequence: str) -> int:
    """How many characters at the end of a text may be the beginning of a sequence."""
    return next(
        (
            length
            for length in range(min(len(text), len(sequence) - 1), 0, -1)
            if sequence.startswith(text[-length:])
        ),
        0,
    )
