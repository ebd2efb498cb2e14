"""Splits a GGUF file into parts, as llama.cpp's own tool does."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.engines.gguf_files import Typed, string, value

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_U16, _I32, _STRING, _ARRAY = 2, 5, 8, 9
_ALIGNMENT = 32


@dataclass(slots=True)
class _Tensor:
    head: bytes
    """Name, shape and type."""
    offset: int
    data: bytes = b""


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def take(self, count: int) -> bytes:
        begin, self.position = self.position, self.position + count
        return self._content[begin : self.position]

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def skip_string(self) -> None:
        self.take(self.number("<Q"))

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.skip_string()
        elif kind == _ARRAY:
            inner, count = self.number("<I"), self.number("<Q")
            for _ in range(count):
                self.skip_value(inner)
        else:
            self.take(_SIZES[kind])

    def tensor(self) -> _Tensor:
        begin = self.position
        self.skip_string()
        self.take(8 * self.number("<I") + 4)
        return _Tensor(self._content[begin : self.position], self.number("<Q"))


def split(content: bytes, count: int) -> list[bytes]:
    """The parts; the first one has the metadata and its share of the tensors."""
    reader = _Reader(content)
    reader.take(8)
    tensors_count, keys_count = reader.number("<Q"), reader.number("<Q")
    begin = reader.position
    for _ in range(keys_count):
        reader.skip_string()
        reader.skip_value(reader.number("<I"))
    metadata = content[begin : reader.position]
    tensors = [reader.tensor() for _ in range(tensors_count)]
    start = reader.position + -reader.position % _ALIGNMENT
    ends = sorted([tensor.offset for tensor in tensors] + [len(content) - start])
    for tensor in tensors:
        end = next(end for end in ends if end > tensor.offset)
        tensor.data = content[start + tensor.offset : start + end]
    share = -(-len(tensors) // count)
    return [
        _part(
            tensors[number * share : (number + 1) * share],
            metadata if number == 0 else b"",
            keys_count if number == 0 else 0,
            {
                "split.no": Typed(_U16, struct.pack("<H", number)),
                "split.count": Typed(_U16, struct.pack("<H", count)),
                "split.tensors.count": Typed(_I32, struct.pack("<i", len(tensors))),
            },
        )
        for number in range(count)
    ]


def _part(tensors: list[_Tensor], metadata: bytes, keys_count: int, more: dict[str, Typed]) -> bytes:
    table, data = b"", b""
    for tensor in tensors:
        table += tensor.head + struct.pack("<Q", len(data))
        data += tensor.data + bytes(-len(tensor.data) % _ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), keys_count + len(more)) + metadata
    head += b"".join(string(key) + value(content) for key, content in more.items()) + table
    return head + bytes(-len(head) % _ALIGNMENT) + data
