"""Turns values into text for people: numbers with units, aligned columns, colours. Pure.

Every command formats with it. Invariant: no text of a model or a file can steer the terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "-"
"""Stands where a number is not known."""

_KIBI = 1024
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
# Below these, the next smaller form would round to the same text.
_SHORT_SECONDS = 0.0995
_SECOND = 0.9995
_TEN_SECONDS = 9.95
_SPANS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. Numbers go to the right."""

    title: str
    right: bool = False


@dataclass(frozen=True, slots=True)
class Style:
    """Colours, or none."""

    colours: bool

    def dim(self, text: str) -> str:
        """Less important."""
        return self._wrapped("2", text)

    def bold(self, text: str) -> str:
        """More important."""
        return self._wrapped("1", text)

    def red(self, text: str) -> str:
        """Something failed."""
        return self._wrapped("31", text)

    def _wrapped(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours and text else text


PLAIN = Style(colours=False)


def printable(text: str) -> str:
    """``text`` without control characters other than line feed and tab."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """``text`` as a single printable line."""
    return printable(text).replace("\n", " ").replace("\t", " ")


def format_bytes(size_bytes: int) -> str:
    """For example "2.3 MiB"; 0 is unknown."""
    if size_bytes <= 0:
        return NOTHING
    power = min((size_bytes.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{size_bytes / _KIBI**power:.{min(power, 1)}f} {_UNITS[power]}"


def format_amount(size_bytes: int) -> str:
    """The same where 0 is known to be none: "0 B"."""
    return format_bytes(size_bytes) if size_bytes > 0 else "0 B"


def format_count(count: int) -> str:
    """For example "8,192"; 0 is unknown."""
    return f"{count:,}" if count > 0 else NOTHING


def format_seconds(seconds: float) -> str:
    """A span to three figures or so: "4.2 ms", "830 ms", "2.4 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    if seconds < _SHORT_SECONDS:
        return f"{seconds * 1000:.1f} ms"
    if seconds < _SECOND:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _TEN_SECONDS:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, small_size, small_unit in _SPANS:
        if whole >= size:
            large, rest = divmod(whole, size)
            small = rest // small_size
            return f"{large} {unit} {small} {small_unit}" if small else f"{large} {unit}"
    return f"{whole} s"


def format_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], style: Style = PLAIN) -> str:
    """Aligned columns under their titles, two spaces apart, without trailing spaces; ends with a newline."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    titles = [column.title for column in columns]
    widths = [max(map(_width, texts)) for texts in zip(titles, *cells, strict=True)]
    lines = [style.bold(_line(columns, widths, titles))]
    lines += [_line(columns, widths, row) for row in cells]
    return "\n".join(lines) + "\n"


def format_fields(fields: Sequence[tuple[str, str]]) -> str:
    """Names and values, the values aligned; ends with a newline."""
    width = max((len(name) for name, _ in fields), default=0)
    return "".join(f"{name:<{width}}  {one_line(value)}".rstrip() + "\n" for name, value in fields)


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    padded = []
    for column, width, cell in zip(columns, widths, cells, strict=True):
        space = " " * (width - _width(cell))
        padded.append(space + cell if column.right else cell + space)
    return "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Terminal columns."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
