"""What has come of a file so far, beside the place where it will lie: ``<name>.part`` in our own store.

``files`` uses it in the worker. Invariants: two processes never write one part; the hash is always that of
the bytes that are there; the file gets its name only when all is on the disk.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

SUFFIX = ".part"
READ_BYTES = 1 << 20


class Hash(Protocol):
    """What counts as one is ``hashlib``'s."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Takes more bytes."""

    def hexdigest(self) -> str:
        """Of all of them."""


def part_path(target: Path, suffix: str = SUFFIX) -> Path:
    """Where what has come so far lies."""
    return target.with_name(target.name + suffix)


def part_bytes(target: Path, suffix: str = SUFFIX) -> int:
    """How much of it is there."""
    try:
        return part_path(target, suffix).lstat().st_size
    except OSError:
        return 0


def file_bytes(path: Path) -> int:
    """The size of a regular file; -1 where there is none."""
    try:
        status = path.stat()
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def try_lock(path: Path) -> int | None:
    """The part at ``path``, opened and locked; None while another process has it. Raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(path.lstat(), os.fstat(descriptor)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # another one has it, or has just given it its name
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


class Part:
    """A part that is locked. ``new_hash`` makes what checks it. ``close`` it."""

    def __init__(self, path: Path, descriptor: int, new_hash: Callable[[], Hash]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._new_hash = new_hash
        self._hash = new_hash()
        self.size_bytes = 0

    def read(self, tell: Callable[[int], None]) -> None:
        """Hashes what is there from before; ``tell`` takes how many bytes are done."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while data := os.read(self._descriptor, READ_BYTES):
            self._hash.update(data)
            self.size_bytes += len(data)
            tell(self.size_bytes)

    def clear(self) -> None:
        """Begins at zero."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hash, self.size_bytes = self._new_hash(), 0

    def write(self, data: bytes) -> None:
        """Adds bytes at the end, at once. Raises ``OSError`` with as many written as went."""
        rest = memoryview(data)
        while rest:
            count = os.write(self._descriptor, rest)
            self._hash.update(rest[:count])
            self.size_bytes += count
            rest = rest[count:]

    @property
    def checksum(self) -> str:
        """Of what is there, in hexadecimal digits."""
        return self._hash.hexdigest()

    def finish(self, target: Path) -> None:
        """Gives it its name, once all of it is on the disk."""
        os.fsync(self._descriptor)
        self._path.rename(target)
        sync_folder(target.parent)

    def remove(self) -> None:
        """Deletes it."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of it; what is there stays."""
        os.close(self._descriptor)


def sync_folder(folder: Path) -> None:
    """Has the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
