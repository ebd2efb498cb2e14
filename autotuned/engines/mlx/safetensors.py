"""The header of a safetensors file: which tensors it holds, without reading them.

``facts`` reads each file of a model. The format is eight bytes with the length of a JSON object, that
object, and the data. Invariant: a file that claims more than it has is refused, whatever it says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec

from autotuned.core.errors import ModelInvalid
from autotuned.engines.gguf_content import fingerprint

MAX_HEADER_BYTES = 100 << 20
_LENGTH_BYTES = 8
_METADATA = "__metadata__"


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its type as the file names it, its elements and its bytes."""

    dtype: str
    elements_count: int
    bytes_count: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What one file holds. ``fingerprint`` is that of its content, by ``gguf_content``."""

    tensors: dict[str, Tensor]
    fingerprint: bytes


def read_header(path: Path) -> SafetensorsHeader:
    """Reads the header of one file. Raises ``ModelInvalid``."""
    try:
        with path.open("rb") as file:
            file_bytes = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            data_start = _LENGTH_BYTES + length
            if not 0 < length <= MAX_HEADER_BYTES or data_start > file_bytes:
                raise _invalid(path, "its header is cut off or no header at all")
            tensors = _tensors(path, file.read(length), file_bytes - data_start)
            return SafetensorsHeader(
                tensors, fingerprint(file, header_bytes=data_start, file_bytes=file_bytes)
            )
    except OSError as error:
        raise _invalid(path, f"it cannot be read ({error.strerror})") from error


def _tensors(path: Path, header: bytes, data_bytes: int) -> dict[str, Tensor]:
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        tensors = {
            name: msgspec.json.decode(entry, type=_Tensor)
            for name, entry in entries.items()
            if name != _METADATA
        }
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"its header cannot be read ({error})") from error
    if any(not 0 <= start <= end <= data_bytes for start, end in (t.data_offsets for t in tensors.values())):
        raise _invalid(path, "it is cut off")
    return {
        name: Tensor(each.dtype, math.prod(each.shape), each.data_offsets[1] - each.data_offsets[0])
        for name, each in tensors.items()
    }


def _invalid(path: Path, problem: str) -> ModelInvalid:
    return ModelInvalid(f'"{path}" holds no weights: {problem}; download the model again.', path=str(path))
