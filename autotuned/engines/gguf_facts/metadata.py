"""The metadata of one GGUF file, read with the types and bounds that its keys must have.

``facts`` makes one for a file; ``layers``, ``windows`` and ``recurrent`` read it.
Invariant: whatever the file claims, a number that comes out of here is one that a model can have, so
that the arithmetic with it stays small; anything else is a ``ModelInvalid`` that names the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autotuned.core.errors import ModelInvalid
from autotuned.engines.gguf import GgufHeader, Value, invalid_file

# llama.cpp's own limit.
MAX_LAYERS = 512
MAX_CONTEXT = 1 << 30
MAX_HEADS = 1 << 12
# Elements of one vector: a head's key, a hidden state, a convolution.
MAX_LENGTH = 1 << 20


class Metadata:
    """Keys are those below the architecture's name: "block_count" is "llama.block_count"."""

    def __init__(self, header: GgufHeader, path: Path) -> None:
        self._values: Mapping[str, Value] = header.values
        self._lengths = header.lengths
        self._path = path
        self.architecture = ""
        self.architecture = self.general_text("general.architecture")

    def invalid(self, problem: str) -> ModelInvalid:
        """The error that says what is wrong with this file."""
        return invalid_file(self._path, problem)

    def general_text(self, key: str, default: str | None = None) -> str:
        """The text of a whole key. Raises ``ModelInvalid`` for another type, or none and no default."""
        value = self._values.get(key, default)
        if not isinstance(value, str):
            raise self._missing_or_wrong(key, "text")
        return value

    def general_elements(self, key: str) -> int:
        """Elements of the array of a whole key, kept or not; 0 without one."""
        return self._lengths.get(key, 0)

    def elements(self, key: str) -> int:
        """Elements of the array of a key, kept or not; 0 without one."""
        return self._lengths.get(self._name(key), 0)

    def value(self, key: str) -> Value | None:
        """What the file has for a key, whatever its type; None without one."""
        return self._values.get(self._name(key))

    def number(self, key: str, default: int | None = None, *, least: int = 0, most: int = MAX_LENGTH) -> int:
        """A whole number within bounds. Raises ``ModelInvalid`` like ``general_text``."""
        value = self._values.get(self._name(key), default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._missing_or_wrong(self._name(key), "a whole number")
        return self._in_range(key, value, least, most)

    def per_layer(
        self, key: str, layers_count: int, default: tuple[int, ...], *, most: int = MAX_HEADS
    ) -> tuple[int, ...]:
        """A number for each layer, whether the file has one for all or one for each."""
        value = self._list(key, layers_count)
        if value is None:
            return (self.number(key, most=most),) * layers_count if self._has(key) else default
        return tuple(self._in_range(key, self._whole(key, each), 0, most) for each in value)

    def flags(self, key: str, layers_count: int) -> tuple[bool, ...] | None:
        """Yes or no for each layer; numbers count as yes when they are not 0. None without a list."""
        value = self._list(key, layers_count)
        return None if value is None else tuple(bool(each) for each in value)

    def _list(self, key: str, layers_count: int) -> tuple[int | float | bool, ...] | None:
        """The list of a key, one entry a layer; llama.cpp refuses one of another length."""
        value = self.value(key)
        count = len(value) if isinstance(value, tuple) else self.elements(key)
        if count and count != layers_count:
            raise self.invalid(f'has {count:,} values for "{self._name(key)}", but {layers_count:,} layers')
        return value if isinstance(value, tuple) and count else None

    def _has(self, key: str) -> bool:
        return self._name(key) in self._values

    def _name(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def _whole(self, key: str, value: float) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._missing_or_wrong(self._name(key), "a list of whole numbers")
        return value

    def _in_range(self, key: str, value: int, least: int, most: int) -> int:
        if not least <= value <= most:
            raise self.invalid(f'has {value:,} for "{self._name(key)}", which no model has')
        return value

    def _missing_or_wrong(self, name: str, expected: str) -> ModelInvalid:
        if name in self._values or name in self._lengths:
            return self.invalid(f'has a value for "{name}" that is not {expected}')
        return self.invalid(f'does not say its "{name}", so that no engine here can run it')
