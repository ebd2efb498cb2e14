"""From the text of a reply to its parts: what the model thinks, what it says, which tools it calls.

``generation`` feeds the text as it grows. The marks are those of the model's own template, as mlx_lm
knows them. Invariant: a mark is never given out, nor the line ends around one; a call that cannot be
read comes out as the text that it is.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autotuned.engines.mlx.inside.stops import begun

SAID, THOUGHT, CALLED = "content", "reasoning_content", "tool_calls"
# Of an id: enough that no two calls of a conversation share one.
ID_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What begins and ends thoughts and calls; "" where the model has none. ``parse`` reads a call."""

    think_start: str = ""
    think_end: str = ""
    call_start: str = ""
    call_end: str = ""
    parse: Callable[[str], Any] | None = None


class ReplyReader:
    """One reply. ``thinks`` says that it begins within a thought."""

    def __init__(self, marks: Marks, *, thinks: bool) -> None:
        self._marks = marks
        self._part = THOUGHT if thinks else SAID
        self._held = ""
        self._call = ""
        self._skips_lines = thinks
        self.calls_count = 0

    @property
    def is_thinking(self) -> bool:
        """Whether what comes is a thought."""
        return self._part == THOUGHT

    def feed(self, text: str) -> list[dict[str, Any]]:
        """The deltas of OpenAI's dialect that are certain now."""
        if not (self._marks.think_end or self._marks.call_start):
            return [{SAID: text}] if text else []
        self._held += text
        deltas: list[dict[str, Any]] = []
        while self._advance(deltas):
            pass
        return deltas

    def finish(self) -> list[dict[str, Any]]:
        """What was held back of a reply that is over."""
        deltas: list[dict[str, Any]] = []
        if self._part == CALLED:
            self._end_call(self._held, deltas)
        else:
            self._give(self._held, deltas)
        self._held = ""
        return deltas

    def _advance(self, deltas: list[dict[str, Any]]) -> bool:
        """Takes what is held up to the next mark; whether there was one."""
        if self._part == CALLED:
            end = self._marks.call_end
            place = self._held.find(end) if end else -1
            if place < 0:
                return False
            called, self._held = self._held[:place], self._held[place + len(end) :]
            self._end_call(called, deltas)
            return True
        wanted = self._wanted()
        found = min(
            ((place, mark) for mark in wanted if (place := self._held.find(mark)) >= 0),
            default=None,
        )
        if found is None:
            held = max((begun(self._held, mark) for mark in wanted), default=0)
            sure = self._held[: len(self._held) - held].rstrip("\n") if held or wanted else self._held
            self._give(sure, deltas)
            self._held = self._held[len(sure) :]
            return False
        place, mark = found
        self._give(self._held[:place].rstrip("\n"), deltas)
        self._held = self._held[place + len(mark) :]
        self._part = wanted[mark]
        self._skips_lines = True
        return True

    def _wanted(self) -> dict[str, str]:
        """The marks that mean something here, each with the part that it begins."""
        marks = self._marks
        if self._part == THOUGHT:
            return {marks.think_end: SAID}
        wanted = {marks.call_start: CALLED, marks.think_start: THOUGHT}
        return {mark: part for mark, part in wanted.items() if mark}

    def _give(self, text: str, deltas: list[dict[str, Any]]) -> None:
        if self._skips_lines:
            text = text.lstrip("\n")
        if text:
            self._skips_lines = False
            deltas.append({self._part: text})

    def _end_call(self, text: str, deltas: list[dict[str, Any]]) -> None:
        self._part, self._skips_lines = SAID, True
        try:
            parsed = self._marks.parse(text) if self._marks.parse else None
            calls = [_call(each) for each in (parsed if isinstance(parsed, list) else [parsed])]
        except Exception:  # noqa: BLE001 - parsers of many authors, each raises what it likes
            calls = []
        if not calls:
            self._skips_lines = False
            self._give(f"{self._marks.call_start}{text}{self._marks.call_end}", deltas)
        for name, arguments in calls:
            call = {
                "index": self.calls_count,
                "id": f"call_{secrets.token_hex(ID_BYTES)}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            self.calls_count += 1
            deltas.append({CALLED: [call]})


def _call(parsed: Any) -> tuple[str, str]:
    """Name and arguments as JSON. Raises for what is no call."""
    name, arguments = parsed["name"], parsed.get("arguments", {})
    if not isinstance(name, str) or not name:
        raise TypeError(name)
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
