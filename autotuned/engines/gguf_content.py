"""What names the content of a GGUF file: a hash that costs milliseconds, however large the file is.

``gguf`` calls it for each file. It covers the size of the file, its header (metadata, vocabulary and
tensor table), and samples of the tensor data: 64 pieces of 4 KiB, evenly spaced from the first to the
last byte, and all of it where it is no larger than that.
Invariant: files with equal bytes have equal fingerprints, wherever they lie; another quantization,
another training run or another template has another one. Weights that were changed by hand between
the samples are not noticed: this names models and is no checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

SAMPLES_COUNT = 64
SAMPLE_BYTES = 4096
CHUNK_BYTES = 1 << 20
# A header with a vocabulary has 5 to 20 MB; what a file claims beyond this is sampled like weights.
MAX_HEADER_BYTES = 64 << 20


def fingerprint(file: BinaryIO, *, header_bytes: int, file_bytes: int) -> bytes:
    """The SHA-256 over size, header and samples. ``header_bytes`` is where the tensor data begins.

    Raises ``OSError`` when the file cannot be read.
    """
    header_bytes = min(header_bytes, file_bytes, MAX_HEADER_BYTES)
    digest = hashlib.sha256(file_bytes.to_bytes(8, "little"))
    for start, length in (*_chunks(header_bytes), *_samples(header_bytes, file_bytes)):
        file.seek(start)
        digest.update(file.read(length))
    return digest.digest()


def _chunks(end: int) -> Iterator[tuple[int, int]]:
    for start in range(0, end, CHUNK_BYTES):
        yield start, min(CHUNK_BYTES, end - start)


def _samples(start: int, end: int) -> Iterator[tuple[int, int]]:
    span = end - start
    if span <= SAMPLES_COUNT * SAMPLE_BYTES:
        yield start, span
        return
    for number in range(SAMPLES_COUNT):
        yield start + (span - SAMPLE_BYTES) * number // (SAMPLES_COUNT - 1), SAMPLE_BYTES
