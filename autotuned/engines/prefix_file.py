"""The files of saved KV states: whether what the engine wrote is whole, and what it may read.

The engine ends its process when it reads a file that was cut short, and takes one of another model of
the same dimensions for its own. So each file that it wrote gets a seal at its end, and it reads only
what is sealed; it ignores what follows its own data.
``model`` asks before and after. Invariant: a file of another length, model, KV type or build is not
sound. Damage in the middle is for the checksum of whoever keeps the files.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from autotuned.core.errors import StorageFull
from autotuned.core.plan import LoadShape
from autotuned.core.prefix import WrittenPrefix

MAGIC = b"atprefix"
# The magic, what the state is of, and the length of everything before the seal.
_SEAL = struct.Struct("<8s32sQ")


class PrefixFiles:
    """The saved states that fit one loaded model."""

    def __init__(self, folder: Path, *, model_digest: str, shape: LoadShape, engine_version: str) -> None:
        self._folder = folder
        # Not the context, slots and batch: a state restores into others.
        parts = (
            model_digest,
            shape.key_cache_type.value,
            shape.value_cache_type.value,
            str(shape.flash_attention),
            engine_version,
        )
        self._identity = hashlib.sha256("\0".join(parts).encode()).digest()

    def finish(self, file_name: str, written: WrittenPrefix) -> WrittenPrefix:
        """Seals a file of which the engine says that it wrote so much. Raises ``StorageFull``.

        The bytes that it returns are those with the seal; without a token there is no file.
        """
        path = self._folder / file_name
        try:
            length_bytes = path.stat().st_size
            if length_bytes != written.bytes_count:
                raise self.unwritten("the file is shorter than what was written to it")
            if not written.tokens_count:
                path.unlink()
                return WrittenPrefix(0, 0)
            with path.open("ab") as file:
                file.write(self._seal(length_bytes))
        except OSError as error:
            raise self.unwritten(error.strerror or str(error)) from error
        return WrittenPrefix(written.tokens_count, length_bytes + _SEAL.size)

    def is_sound(self, file_name: str) -> bool:
        """Whether a file is there, whole, and of this model."""
        path = self._folder / file_name
        try:
            length_bytes = path.stat().st_size - _SEAL.size
            if length_bytes <= 0:
                return False
            with path.open("rb") as file:
                file.seek(length_bytes)
                return file.read() == self._seal(length_bytes)
        except OSError:
            return False

    def unwritten(self, problem: str) -> StorageFull:
        """The error of a state that is not on the disk."""
        return StorageFull(
            f'The KV state could not be written to "{self._folder}" ({problem}); make room on that disk.',
            path=str(self._folder),
        )

    def _seal(self, length_bytes: int) -> bytes:
        return _SEAL.pack(MAGIC, self._identity, length_bytes)
