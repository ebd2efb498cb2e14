"""Everything that a GGUF file says of itself, arrays and tensor table too, as ``/api/show`` tells it.

``describe`` calls it for files of the tests, which are trusted and small.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from struct import calcsize, unpack_from
from typing import Any

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING = 8
_ARRAY = 9
_TENSOR_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 8: "Q8_0", 12: "Q4_K", 14: "Q6_K", 30: "BF16"}
_FILE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 7: "Q8_0", 15: "Q4_K_M", 18: "Q6_K", 32: "BF16"}


@dataclass(frozen=True, slots=True)
class GgufContent:
    """The metadata and the tensor table of one file."""

    values: dict[str, Any]
    tensors: tuple[dict[str, Any], ...]

    @property
    def architecture(self) -> str:
        return self.values["general.architecture"]

    @property
    def parameters_count(self) -> int:
        return sum(prod(tensor["shape"]) for tensor in self.tensors)

    @property
    def quantization(self) -> str:
        return _FILE_TYPES.get(self.values.get("general.file_type", -1), "unknown")

    def of_architecture(self, key: str) -> Any:
        """The value of ``<architecture>.<key>``, or None."""
        return self.values.get(f"{self.architecture}.{key}")


@lru_cache(maxsize=8)
def read_content(path: Path) -> GgufContent:
    """Reads the file's header in full."""
    reader = _Reader(path.read_bytes())
    reader.offset = 8
    tensors_count, keys_count = reader.number("Q"), reader.number("Q")
    values = {reader.string(): reader.value(reader.number("I")) for _ in range(keys_count)}
    return GgufContent(values, tuple(reader.tensor() for _ in range(tensors_count)))


class _Reader:
    def __init__(self, content: bytes):
        self.content = content
        self.offset = 0

    def number(self, form: str) -> Any:
        (value,) = unpack_from("<" + form, self.content, self.offset)
        self.offset += calcsize("<" + form)
        return value

    def string(self) -> str:
        length = self.number("Q")
        start = self.offset
        self.offset += length
        return self.content[start : self.offset].decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            element = self.number("I")
            return [self.value(element) for _ in range(self.number("Q"))]
        return self.number(_NUMBERS[kind])

    def tensor(self) -> dict[str, Any]:
        name = self.string()
        shape = [self.number("Q") for _ in range(self.number("I"))]
        kind = self.number("I")
        self.number("Q")
        return {"name": name, "type": _TENSOR_TYPES.get(kind, str(kind)), "shape": shape}
