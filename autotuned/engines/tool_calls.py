"""Which tool call a fragment of a chat stream belongs to.

``chat_events`` has one for each stream. Invariant: a call keeps its number for the whole stream.
"""

from __future__ import annotations


class ToolCalls:
    """Which call a fragment belongs to, whether servers number their calls, name them, or send them whole."""

    def __init__(self) -> None:
        self.count = 0
        self._by_index: dict[int, int] = {}
        self._ids: list[str] = []

    def place(self, index: int | None, call_id: str, name: str) -> tuple[int, bool]:
        """The number of the fragment's call, and whether it is the first of it."""
        known = self.count - 1 if index is None else self._by_index.get(index, -1)
        is_other = bool(call_id) and known >= 0 and self._ids[known] not in {"", call_id}
        is_next = index is None and bool(name) and not call_id
        if known >= 0 and not is_other and not is_next:
            return known, False
        if index is not None:
            self._by_index[index] = self.count
        self._ids.append(call_id)
        self.count += 1
        return self.count - 1, True
