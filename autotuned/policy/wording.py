"""How sentences write numbers: with their noun, and bytes in a readable unit.

The modules of reasons use it. Invariant: what is written is one line without rounding surprises:
one decimal of the largest binary unit.
"""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def count(number: int, noun: str) -> str:
    """A number with its noun, for example "1 token" and "1,024 tokens"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number_bytes: int) -> str:
    """Bytes in their largest binary unit, for example "1.5 MiB"."""
    for unit, unit_bytes in _UNITS:
        if number_bytes >= unit_bytes:
            return f"{number_bytes / unit_bytes:,.1f} {unit}"
    return count(number_bytes, "byte")


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them: "a", "a and b", "a, b and c"."""
    before, last = ", ".join(words[:-1]), "".join(words[-1:])
    return f"{before} and {last}" if before else last
