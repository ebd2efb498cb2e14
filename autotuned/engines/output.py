"""What a worker writes: its last lines, and its last words when it fails.

``process`` adds every line to one; an engine that reads more of them has a class of its own.
Invariant: it holds a bounded number of lines of bounded length, however much the worker writes.
"""

from __future__ import annotations

from collections import deque

KEPT_LINES = 40
LONGEST_LINE = 500


class Output:
    """The last lines of one worker. ``is_serving``: what it writes from now on may hold requests."""

    # How a line begins that says why a worker ends.
    failures: tuple[str, ...] = ("error: ", "Error: ", "Fatal Python error", "terminate called")

    def __init__(self) -> None:
        self.is_serving = False
        self.first_error = ""
        self.bytes_count = 0
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._lines)

    @property
    def last_words(self) -> str:
        """What a failing check or allocation wrote on its way out; never what a request contained."""
        return next((line for line in reversed(self._lines) if line.startswith(self.failures)), "")

    def add(self, line: str) -> None:
        """Takes one line without its end."""
        line = line[:LONGEST_LINE].rstrip()
        if not line:
            return
        self._lines.append(line)
        if not self.first_error and self.is_error(line):
            self.first_error = self.bare(line)
        if not self.is_serving:
            self.read(line)

    def is_error(self, line: str) -> bool:
        """Whether a line tells of an error."""
        return line.startswith(self.failures)

    def bare(self, line: str) -> str:
        """An error as part of a sentence."""
        return line.partition(": ")[2].rstrip(".") or line

    def read(self, line: str) -> None:
        """Takes from a line of the start what the engine wants to know."""
