"""Turns values into text for people: numbers with units, aligned columns, colours. Pure.

Every command formats with it. Invariant: no text of a model or a file can steer the terminal.
"""

from __future__ import annotations

import shlex
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "-"
"""Stands where a number is not known."""

WIDTH_COLUMNS = 80
"""What sentences are broken to, so that they are the same at every terminal and in a pipe."""

_KIBI = 1024
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
# Below these, the next smaller form would round to the same text.
_SHORT_SECONDS = 0.0995
_SECOND = 0.9995
_TEN_SECONDS = 9.95
_TWO_FIGURES = 9.95
_MILLION_ROUNDS_TO_BILLION = 999_500_000
_BILLIONS_WITHOUT_TENTHS = 99_950_000_000
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


def shortened(text: str, columns: int) -> str:
    """``text`` with an ellipsis for what is beyond ``columns`` characters."""
    return text if len(text) <= columns else text[: columns - 1].rstrip() + "…"


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


def format_parameters(count: int) -> str:
    """Parameters of a model, for example "235B", "8.2B" or "494M"; 0 is unknown."""
    if count <= 0:
        return NOTHING
    if count < _MILLION_ROUNDS_TO_BILLION:
        return f"{max(1, round(count / 1e6))}M"
    return f"{count / 1e9:.{1 if count < _BILLIONS_WITHOUT_TENTHS else 0}f}B"


def format_speed(tokens_per_second: float) -> str:
    """An estimate, for example "about 23 tokens/s, estimated"; 0 is none."""
    if tokens_per_second <= 0:
        return "not estimated"
    return f"about {format_number(tokens_per_second)} tokens/s, estimated"


def format_number(value: float) -> str:
    """Two figures or more: "2,765", "23", "6.4"."""
    return f"{value:.1f}" if value < _TWO_FIGURES else f"{value:,.0f}"


def command_text(*words: str) -> str:
    """A command line that a person can copy: a shell takes each word as it is."""
    return " ".join(shlex.quote(one_line(word)) for word in words)


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


def format_wrapped(fields: Sequence[tuple[str, str]], *, indent: int = 0, value_column: int = 0) -> str:
    """The same with long values broken between words, each line of a value under its first one.

    ``value_column``: where values begin; 0 is two spaces after the longest name.
    """
    value_column = value_column or indent + max((len(name) for name, _ in fields), default=0) + 2
    before = " " * value_column
    lines = []
    for name, value in fields:
        first = f"{' ' * indent}{name} ".ljust(value_column)
        pieces = textwrap.wrap(
            one_line(value), WIDTH_COLUMNS - value_column, break_long_words=False, break_on_hyphens=False
        )
        lines += [f"{first if number == 0 else before}{piece}" for number, piece in enumerate(pieces or [""])]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def wrapped(text: str) -> str:
    """Sentences broken between words; no newline at the end."""
    return textwrap.fill(one_line(text), WIDTH_COLUMNS, break_long_words=False, break_on_hyphens=False)


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
