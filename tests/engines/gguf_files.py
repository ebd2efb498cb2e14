"""GGUF files for tests, written key by key."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10
_FORMATS = {U32: "<I", F32: "<f", BOOL: "<?", U64: "<Q", 5: "<i", 0: "<B"}

LLAMA: dict[str, object] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.context_length": 4096,
    "llama.attention.head_count": 4,
}


def string(text: str | bytes) -> bytes:
    """A length and the bytes."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(content: object) -> bytes:
    """The type and the value of a Python value: text, bool, int (32 bits), float, or a list of one kind."""
    if isinstance(content, Typed):
        return content.encoded
    if isinstance(content, str):
        return struct.pack("<I", STRING) + string(content)
    if isinstance(content, list):
        items = [value(item) for item in content] or [struct.pack("<I", U32)]
        return (
            struct.pack("<I", ARRAY)
            + items[0][:4]
            + struct.pack("<Q", len(content))
            + b"".join(i[4:] for i in items)
        )
    kind = BOOL if isinstance(content, bool) else F32 if isinstance(content, float) else U32
    return struct.pack("<I", kind) + struct.pack(_FORMATS[kind], content)


class Typed:
    """A value that is already encoded, type included."""

    def __init__(self, kind: int, encoded: bytes) -> None:
        self.encoded = struct.pack("<I", kind) + encoded


def tensor(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    """One entry of the tensor table."""
    sizes = b"".join(struct.pack("<Q", size) for size in shape)
    return string(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


ONE_TENSOR = (tensor("w", (64, 2), 0, 0),)
ONE_TENSOR_BYTES = 64 * 2 * 4


def gguf(
    values: Mapping[str, object],
    tensors: Sequence[bytes] = ONE_TENSOR,
    data_bytes: int = ONE_TENSOR_BYTES,
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A whole file."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    head += b"".join(string(key) + value(content) for key, content in values.items()) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + bytes(data_bytes)


def write(path: Path, values: Mapping[str, object], *rest: object, **options: object) -> Path:
    """Writes a file and returns its path."""
    path.write_bytes(gguf(values, *rest, **options))
    return path
