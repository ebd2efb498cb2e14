"""Reads the small text files in which Linux tells of itself, and the numbers in them.

The other modules here parse them. Invariant: a file that is missing, unreadable or odd gives None or
an empty table, never an error.
"""

from __future__ import annotations

from pathlib import Path

_MOST_DIGITS = 20  # of 64 bits; Python refuses to read numbers of thousands of digits
_BYTES_BY_UNIT = {"": 1, "kB": 1024}


def read_text(path: Path) -> str | None:
    """The content of a file; None where it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read().decode(errors="replace")
    except (OSError, ValueError):  # ValueError: a path that no system has, for example with a NUL
        return None


def whole_number(text: str) -> int | None:
    """A number of ASCII digits alone, space around it aside."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS):
        return None
    return int(digits)


def parse_amounts(text: str) -> dict[str, int]:
    """Bytes by name, of lines like ``MemTotal:  24684092 kB`` (/proc/meminfo, /proc/PID/status).

    Lines without such an amount are left out.
    """
    amounts = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        figure, _, unit = rest.strip().partition(" ")
        number = whole_number(figure)
        if colon and number is not None and unit.strip() in _BYTES_BY_UNIT:
            amounts[name] = number * _BYTES_BY_UNIT[unit.strip()]
    return amounts


def parse_counters(text: str) -> dict[str, int]:
    """Numbers by name, of lines like ``inactive_file 36864`` (memory.stat, memory.events)."""
    counters = {}
    for line in text.splitlines():
        name, _, figure = line.partition(" ")
        number = whole_number(figure)
        if name and number is not None:
            counters[name] = number
    return counters
