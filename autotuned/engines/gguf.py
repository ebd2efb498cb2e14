"""A bounded reader of GGUF headers: what a model file says of itself, without its tensors.

Engines that run GGUF files call ``read_header``. It reads the metadata and the tensor table in
small windows, keeps scalars and short numeric arrays, and steps over everything else, so that a
vocabulary of 150,000 tokens costs milliseconds and no memory.
Invariant: whatever the bytes are, it ends with a header or with ``ModelInvalid``, within bounds of
time and memory that do not depend on what the file claims.

The format is the one of the GGUF specification in the ggml repository, versions 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from autotuned.core.errors import ModelInvalid
from autotuned.engines.gguf_content import fingerprint
from autotuned.engines.gguf_types import TENSOR_TYPES

Scalar = int | float | bool | str
Value = Scalar | tuple[int | float | bool, ...]

WINDOW_BYTES = 1 << 20
MAX_KEYS = 10_000
MAX_TENSORS = 100_000
MAX_NAME_BYTES = 1024
MAX_STRING_BYTES = 16 << 20
MAX_KEPT_BYTES = 16 << 20
MAX_ARRAY_ELEMENTS = 16_000_000
MAX_STRINGS_IN_ALL = 8_000_000
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
# Longest numeric array that is kept: per-layer counts and patterns, never a vocabulary.
KEPT_ELEMENTS = 1024
DEFAULT_ALIGNMENT = 32

_U32 = Struct("<I")
_U64 = Struct("<Q")
_BOOL = 7
_STRING = 8
_ARRAY = 9
_NUMBERS = {
    0: Struct("<B"),
    1: Struct("<b"),
    2: Struct("<H"),
    3: Struct("<h"),
    4: _U32,
    5: Struct("<i"),
    6: Struct("<f"),
    _BOOL: Struct("<?"),
    10: _U64,
    11: Struct("<q"),
    12: Struct("<d"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """The metadata that was kept, and the sums over the tensor table.

    ``lengths`` has the number of elements of each array, kept or not. ``weights_by_type`` has the
    bytes of the tensors of each ggml type, by its name. ``fingerprint`` is that of the file's
    content, by ``gguf_content``.
    """

    values: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors_count: int
    parameters_count: int
    weights_by_type: Mapping[str, int]
    fingerprint: bytes

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(self.weights_by_type.values())


def read_header(path: Path) -> GgufHeader:
    """Reads the header of one file. Raises ``ModelInvalid`` for anything that is not a sound GGUF."""
    try:
        with path.open("rb", buffering=0) as file:
            return _read(_Window(file, path), file)
    except OSError as error:
        raise invalid_file(path, f"cannot be read: {error.strerror}") from error


def invalid_file(path: Path, problem: str) -> ModelInvalid:
    """The error that says what is wrong with a file: one line, whatever the file's own words are."""
    sentence = f'"{path}" {problem}.'
    printable = "".join(letter if letter.isprintable() else "?" for letter in sentence)
    return ModelInvalid(printable, path=str(path))


class _Window:
    """A cursor over a file that holds at most one window of it, or one string."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._buffer = b""
        self._start = 0
        self._cursor = 0
        self.size = file.seek(0, 2)
        self.lengths: dict[str, int] = {}
        self._strings_count = 0
        self._kept_bytes = 0

    @property
    def position(self) -> int:
        """Where in the file the next byte comes from."""
        return self._start + self._cursor

    def invalid(self, problem: str) -> ModelInvalid:
        """The error that says what is wrong with this file."""
        return invalid_file(self._path, problem)

    def truncated(self) -> ModelInvalid:
        """The error of a header that ends too early."""
        return self.invalid(f"is cut off inside its header, after {self.size:,} bytes; download it again")

    def _fill(self, count: int) -> None:
        """Makes ``count`` bytes available at the cursor."""
        position = self.position
        if count > self.size - position:
            raise self.truncated()
        self._file.seek(position)
        wanted = max(count, min(WINDOW_BYTES, self.size - position))
        pieces = []
        while wanted > 0 and (piece := self._file.read(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        self._buffer = b"".join(pieces)
        self._start, self._cursor = position, 0
        if len(self._buffer) < count:
            raise self.truncated()

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if self._cursor + count > len(self._buffer):
            self._fill(count)
        begin = self._cursor
        self._cursor = begin + count
        return self._buffer[begin : self._cursor]

    def keep(self, count: int) -> bytes:
        """The next ``count`` bytes, counted against what one header may occupy in memory."""
        self._kept_bytes += count
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise self.invalid(f"claims more than {MAX_KEPT_BYTES:,} bytes of metadata, which no model has")
        return self.take(count)

    def skip(self, count: int) -> None:
        """Steps over ``count`` bytes."""
        if count > self.size - self.position:
            raise self.truncated()
        self._cursor += count

    def u32(self) -> int:
        """An unsigned 32-bit number."""
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def u64(self) -> int:
        """An unsigned 64-bit number."""
        value: int = _U64.unpack(self.take(8))[0]
        return value

    def string(self, limit: int) -> bytes:
        """A string: its length, then its bytes."""
        length = self.u64()
        if length > limit:
            raise self.invalid(f"claims a string of {length:,} bytes, where {limit:,} are the most")
        return self.keep(length)

    def skip_strings(self, count: int) -> None:
        """Steps over ``count`` strings; this loop is what a large vocabulary costs."""
        self._strings_count += count
        if self._strings_count > MAX_STRINGS_IN_ALL:
            raise self.invalid(f"claims more than {MAX_STRINGS_IN_ALL:,} strings")
        unpack = _U64.unpack_from
        while count:
            if self._cursor + 8 > len(self._buffer):
                self._fill(8)
            buffer, cursor, last = self._buffer, self._cursor, len(self._buffer) - 8
            while count and cursor <= last:
                cursor += 8 + unpack(buffer, cursor)[0]
                count -= 1
            if cursor > self.size - self._start:
                raise self.truncated()
            self._cursor = cursor


def _read(window: _Window, file: BinaryIO) -> GgufHeader:
    magic = window.take(4) if window.size >= 4 else b""  # noqa: PLR2004 - the length of the magic word
    if magic != b"GGUF":
        raise window.invalid('is not a GGUF file: it does not start with "GGUF"')
    version = window.u32()
    if version not in {2, 3}:
        kind = "big-endian" if version in {2 << 24, 3 << 24} else f"GGUF version {version}"
        raise window.invalid(f"is {kind}; only little-endian versions 2 and 3 are supported")
    tensors_count = window.u64()
    keys_count = window.u64()
    if tensors_count > MAX_TENSORS or keys_count > MAX_KEYS:
        raise window.invalid(f"claims {tensors_count:,} tensors and {keys_count:,} keys, which no model has")
    values = _read_values(window, keys_count)
    parameters_count, weights_by_type, data_start = _read_tensors(window, values, tensors_count)
    return GgufHeader(
        values=values,
        lengths=window.lengths,
        tensors_count=tensors_count,
        parameters_count=parameters_count,
        weights_by_type=weights_by_type,
        fingerprint=fingerprint(file, header_bytes=data_start, file_bytes=window.size),
    )


def _read_values(window: _Window, keys_count: int) -> dict[str, Value]:
    values: dict[str, Value] = {}
    seen = set()
    for _ in range(keys_count):
        key = _key(window)
        if key in seen:
            raise window.invalid(f'has the key "{key}" twice')
        seen.add(key)
        value = _read_value(window, key, window.u32())
        if value is not None:
            values[key] = value
    return values


def _key(window: _Window) -> str:
    try:
        return window.string(MAX_NAME_BYTES).decode()
    except UnicodeDecodeError as error:
        raise window.invalid("has a metadata key that is not text") from error


def _read_value(window: _Window, key: str, kind: int) -> Value | None:
    """One value, or None for an array that is not kept."""
    if kind == _STRING:
        return window.string(MAX_STRING_BYTES).decode(errors="replace")
    if kind == _ARRAY:
        return _read_array(window, key)
    number = _number(window, key, kind)
    value: Scalar = number.unpack(window.take(number.size))[0]
    return value


def _read_array(window: _Window, key: str) -> Value | None:
    kind = window.u32()
    count = window.u64()
    if count > MAX_ARRAY_ELEMENTS:
        raise window.invalid(f'claims {count:,} elements for "{key}", which no model has')
    window.lengths[key] = count
    if kind == _STRING:
        window.skip_strings(count)
        return None
    number = _number(window, key, kind)
    if count > KEPT_ELEMENTS:
        window.skip(count * number.size)
        return None
    return tuple(value for (value,) in number.iter_unpack(window.keep(count * number.size)))


def _number(window: _Window, key: str, kind: int) -> Struct:
    number = _NUMBERS.get(kind)
    if number is None:
        raise window.invalid(f'has a value of unknown type {kind} for "{key}"')
    return number


def _read_tensors(
    window: _Window, values: Mapping[str, Value], tensors_count: int
) -> tuple[int, dict[str, int], int]:
    """Elements of all tensors, bytes of each type, and where in the file their data begins."""
    parameters_count = 0
    weights_by_type: dict[str, int] = {}
    data_bytes = 0
    alignment = _alignment(window, values)
    for _ in range(tensors_count):
        name = window.string(MAX_NAME_BYTES).decode(errors="replace")
        elements, row = _shape(window, name)
        kind = window.u32()
        offset = window.u64()
        if kind not in TENSOR_TYPES:
            raise window.invalid(f'stores the tensor "{name}" as type {kind}, which is unknown')
        type_name, block_elements, block_bytes = TENSOR_TYPES[kind]
        if row % block_elements:
            raise window.invalid(
                f'has rows of {row:,} in the tensor "{name}", which {type_name} cannot store'
            )
        if offset % alignment:
            raise window.invalid(
                f'places the tensor "{name}" at {offset:,}, off its alignment of {alignment}'
            )
        tensor_bytes = elements // block_elements * block_bytes
        parameters_count += elements
        weights_by_type[type_name] = weights_by_type.get(type_name, 0) + tensor_bytes
        data_bytes = max(data_bytes, offset + tensor_bytes)
    data_start = -(-window.position // alignment) * alignment
    if data_bytes and data_start + data_bytes > window.size:
        raise window.invalid(
            f"is incomplete: its tensors end at byte {data_start + data_bytes:,}, "
            f"but it has {window.size:,} bytes; download it again"
        )
    if sum(weights_by_type.values()) > data_bytes:
        raise window.invalid("has tensors that lie over each other")
    return parameters_count, weights_by_type, data_start


def _shape(window: _Window, name: str) -> tuple[int, int]:
    """Elements of a tensor and of one of its rows."""
    dimensions_count = window.u32()
    if not 1 <= dimensions_count <= MAX_DIMENSIONS:
        raise window.invalid(f'claims {dimensions_count:,} dimensions for the tensor "{name}"')
    dimensions = [window.u64() for _ in range(dimensions_count)]
    elements = 1
    for length in dimensions:
        elements *= length
    if not 1 <= elements < 1 << 63:
        raise window.invalid(f'claims an impossible shape for the tensor "{name}"')
    return elements, dimensions[0]


def _alignment(window: _Window, values: Mapping[str, Value]) -> int:
    alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
    if isinstance(alignment, bool) or not isinstance(alignment, int):
        raise window.invalid("has an alignment that is not a whole number")
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise window.invalid(f"has an alignment of {alignment}, which is not a power of two")
    return alignment
