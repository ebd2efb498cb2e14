"""What options there are and what values they take.

``config`` uses it for every source. The options are the fields of ``core.settings``; there is no
second list: types, ranges, defaults and documentation are read from the dataclasses. Invariant: a
value that comes out of ``parse`` or ``check`` is one that the field may have.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from functools import cache
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from autotuned.core.settings import Range, Settings

VARIABLE_PREFIX = "AUTOTUNE_"
_SHOWN_CHARACTERS = 60


class ValueRefused(ValueError):
    """A value that its option cannot have. The message goes behind the name of the source."""


@dataclass(frozen=True, slots=True)
class Option:
    """One field of one section. ``default`` is None for the folders, which depend on the user."""

    section: str
    name: str
    kind: Any
    default: object
    doc: str

    @property
    def key(self) -> str:
        """The dotted name, as flags have it."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The name in the environment."""
        middle = f"{self.name}_DIR" if self.section == "paths" else f"{self.section}_{self.name}"
        return f"{VARIABLE_PREFIX}{middle}".upper()

    def parse(self, text: str) -> object:
        """The value of a text from environment or flags; relative paths start at the working folder."""
        kind = _bare(self.kind)
        if get_origin(kind) is tuple:
            separator = os.pathsep if get_args(kind)[0] is Path else ";"
            return self.check([each.strip() for each in text.split(separator)] if text else [], Path())
        if kind not in {int, float}:
            return self.check(text, Path())
        try:
            return self.check(int(text) if kind is int else float(text), Path())
        except ValueRefused:
            raise
        except ValueError as error:
            raise self._refused(text) from error

    def check(self, raw: object, base: Path) -> object:
        """The value of what TOML gave; relative paths start at ``base``. Raises ``ValueRefused``."""
        kind = _bare(self.kind)
        if get_origin(kind) is tuple and isinstance(raw, list):
            element = self._path if get_args(kind)[0] is Path else self._text
            return tuple(element(each, base) for each in raw)
        if get_origin(kind) is Literal and raw in get_args(kind):
            return raw
        if kind is Path:
            return self._path(raw, base)
        if kind is str:
            return self._text(raw, base)
        if kind in {int, float}:
            return self._number(raw)
        if isinstance(kind, type) and issubclass(kind, Enum):
            for member in kind:
                if member.value == raw:
                    return member
        raise self._refused(raw)

    def expected(self) -> str:
        """What values there may be, in words."""
        kind = _bare(self.kind)
        if get_origin(kind) is tuple:
            return "a list of paths" if get_args(kind)[0] is Path else "a list of texts"
        if get_origin(kind) is Literal:
            return "one of " + ", ".join(get_args(kind))
        if issubclass(kind, Enum):
            return "one of " + ", ".join(str(member.value) for member in kind)
        if kind in {int, float}:
            limits = self._range()
            noun = "a whole number" if kind is int else "a number"
            return f"{noun} from {limits.minimum:g} to {limits.maximum:g}"
        return {Path: "a path", str: "a text"}[kind]

    def _number(self, raw: object) -> float:
        """A truth value is no number, and a number with a fraction is no whole one."""
        limits, whole = self._range(), _bare(self.kind) is int
        kinds = (int,) if whole else (int, float)
        if type(raw) in kinds and isinstance(raw, int | float) and limits.minimum <= raw <= limits.maximum:
            return raw if whole else float(raw)
        raise self._refused(raw)

    def _range(self) -> Range:
        return next(extra for extra in get_args(self.kind)[1:] if isinstance(extra, Range))

    def _text(self, raw: object, _base: Path) -> str:
        if not isinstance(raw, str) or "\0" in raw:
            raise self._refused(raw)
        return raw

    def _path(self, raw: object, base: Path) -> Path:
        if not isinstance(raw, str) or not raw or "\0" in raw:
            raise self._refused(raw)
        try:
            return (base / Path(raw).expanduser()).absolute()
        except (OSError, RuntimeError) as error:  # the working folder is gone; "~name" of nobody
            raise self._refused(raw) from error

    def _refused(self, raw: object) -> ValueRefused:
        shown = f'"{raw}"' if isinstance(raw, str) else str(raw)
        if len(shown) > _SHOWN_CHARACTERS:
            shown = shown[:_SHOWN_CHARACTERS] + "..."
        return ValueRefused(f"{self.key} takes {self.expected()}, not {shown}.")


@cache
def sections() -> Mapping[str, Any]:
    """The settings class of each section."""
    return get_type_hints(Settings)


@cache
def options() -> Mapping[str, Option]:
    """Every option by its dotted name, in the order of the settings."""
    found = {}
    for section, kind in sections().items():
        hints = get_type_hints(kind, include_extras=True)
        docs = _docs(kind)
        for field in fields(kind):
            default = None if field.default is MISSING else field.default
            option = Option(section, field.name, hints[field.name], default, docs.get(field.name, ""))
            found[option.key] = option
    return found


def summary(section: str) -> str:
    """What a section is about."""
    return cleandoc(sections()[section].__doc__ or "").split(" ``")[0].splitlines()[0]


def _docs(kind: type) -> dict[str, str]:
    """The sentence of each ````name``: sentence`` in a settings docstring."""
    text = " ".join((kind.__doc__ or "").split())
    parts = re.split(r"``(\w+)``: ", text)[1:]
    return {
        name: sentence.strip().rstrip(";.") for name, sentence in zip(parts[::2], parts[1::2], strict=True)
    }


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind
