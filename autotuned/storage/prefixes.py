"""Saved KV prefixes: a manifest in SQLite and a folder of files, the ``PrefixStore`` of the services.

The manifest is what counts: an engine writes a file, and only ``add`` makes it a prefix. So a process
that is killed leaves at worst a file without an entry or an entry without its file; ``prefixes``
removes both. Invariants: an entry's file was complete and on the disk before the entry was; nobody but
the owner can read a file or enter the folder, because states hold what was said in recoverable form.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import TypeVar

import msgspec
from peewee import RawQuery

from autotuned.core.errors import AutotuneError, StorageFull
from autotuned.core.ports import PrefixStore
from autotuned.core.prefix import SavedPrefix
from autotuned.log import fields
from autotuned.storage.db import Database
from autotuned.storage.errors import StorageFailed
from autotuned.storage.tables import PrefixRow

T = TypeVar("T")
Signature = tuple[int, int, int, int]

OWNER_ALONE = 0o600

_log = logging.getLogger(__name__)


class FilePrefixStore(PrefixStore):
    """Every method raises ``StorageFull``, or ``StorageFailed`` where disk or folder cannot be used."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._digests: dict[str, tuple[Signature, str]] = {}
        self._digesting: dict[str, asyncio.Task[str]] = {}

    @property
    def folder(self) -> Path:
        """A folder that its owner alone can enter."""
        return self._folder

    async def prefixes(self) -> Sequence[SavedPrefix]:
        """All of them whose file is there, whole by its size. Makes the folder where it is missing."""
        saved = await self._readable()
        sizes = await self._in_folder(self._sizes)
        sound = [each for each in saved if sizes.get(each.file_name) == each.bytes_count]
        if lost := [each.id for each in saved if each not in sound]:
            _log.warning("saved prefixes without their file are forgotten", extra=fields(count=len(lost)))
            await self.remove(lost)
        known = {each.file_name for each in saved}
        if strange := [name for name in sizes if name not in known]:
            _log.warning("strange files are removed", extra=fields(folder=self._folder, count=len(strange)))
            await self._in_folder(lambda: self._unlink(strange))
        return sound

    async def _readable(self) -> list[SavedPrefix]:
        """What the manifest says; an entry that cannot be understood is removed, and its file is nobody's."""
        every = RawQuery("SELECT * FROM prefixes").dicts()  # unconverted: one entry must not fail them all
        rows = await self._database.run(lambda: list(every.execute(self._database.sqlite)))
        saved = {row["id"]: _to_prefix(row) for row in rows}
        malformed = [prefix_id for prefix_id, prefix in saved.items() if prefix is None]
        if malformed:
            _log.warning("malformed entries of prefixes are removed", extra=fields(count=len(malformed)))
            query = PrefixRow.delete().where(PrefixRow.id.in_(malformed))
            await self._database.run(lambda: query.execute(self._database.sqlite))
        return [prefix for prefix in saved.values() if prefix is not None]

    async def add(self, prefix: SavedPrefix) -> None:
        """Commits an entry; its file is on the disk by then, and its owner's alone."""
        await self._in_folder(lambda: self._settle(prefix.file_name))
        await self._database.run(lambda: PrefixRow.insert(_to_row(prefix)).execute(self._database.sqlite))

    async def touch(self, prefix_id: str, used_at: float) -> None:
        """Remembers a use."""
        query = PrefixRow.update(last_used_at=used_at).where(PrefixRow.id == prefix_id)
        await self._database.run(lambda: query.execute(self._database.sqlite))

    async def remove(self, prefix_ids: Sequence[str]) -> None:
        """Deletes files, then entries: a kill in between leaves entries that the next start forgets."""
        ids = list(prefix_ids)
        query = PrefixRow.select(PrefixRow.file_name).where(PrefixRow.id.in_(ids)).tuples()
        names = await self._database.run(lambda: [name for (name,) in query.execute(self._database.sqlite)])
        await self._in_folder(lambda: self._unlink(names))
        await self._database.run(
            lambda: PrefixRow.delete().where(PrefixRow.id.in_(ids)).execute(self._database.sqlite)
        )

    async def digest(self, file_name: str) -> str:
        """SHA-256 of a file in hexadecimal; "" where it is not there.

        A file that was not touched since is not read again; callers at the same time share one reading.
        """
        task = self._digesting.get(file_name)
        if task is None:
            task = asyncio.ensure_future(self._in_folder(lambda: self._digest(file_name)))
            self._digesting[file_name] = task
            task.add_done_callback(lambda task: self._digested(file_name, task))
        return await asyncio.shield(task)

    async def discard_file(self, file_name: str) -> None:
        """Deletes a file that has no entry."""
        await self._in_folder(lambda: self._unlink([file_name]))

    async def free_bytes(self) -> int:
        """Room on the disk for programs without privileges."""

        def read() -> int:
            disk = os.statvfs(self._folder)
            return disk.f_bavail * disk.f_frsize

        return await self._in_folder(read)

    def _digested(self, file_name: str, task: asyncio.Task[str]) -> None:
        del self._digesting[file_name]
        if not task.cancelled():
            task.exception()  # whoever still waits raises it

    async def _in_folder(self, fn: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(fn)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> AutotuneError:
        if error.errno in {ENOSPC, EDQUOT}:
            return StorageFull(
                f"The disk of {self._folder} is full; free some space there, or set prefixes.disk_mib lower.",
                folder=str(self._folder),
            )
        return StorageFailed(
            f"The folder {self._folder} cannot be used ({error.strerror or error}); make it yours to write.",
            folder=str(self._folder),
        )

    def _sizes(self) -> dict[str, int]:
        """Bytes of everything in the folder; -1 for what is no plain file. A folder there stays as it is."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        if not os.access(
            self._folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
        ):
            raise PermissionError(0, "it is not writable")
        sizes = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    sizes[entry.name] = status.st_size if stat.S_ISREG(status.st_mode) else -1
        return sizes

    def _settle(self, file_name: str) -> None:
        descriptor = os.open(self._path(file_name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != OWNER_ALONE:
                os.fchmod(descriptor, OWNER_ALONE)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _digest(self, file_name: str) -> str:
        path = self._path(file_name)
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                return ""  # a pipe would be waited for, a link leads elsewhere
            with path.open("rb") as file:
                signature = _signature(os.fstat(file.fileno()))
                known = self._digests.get(file_name)
                if known is not None and known[0] == signature:
                    return known[1]
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return ""
        self._digests[file_name] = signature, digest
        return digest

    def _unlink(self, file_names: Sequence[str]) -> None:
        for name in file_names:
            path = self._path(name)
            if not path.is_dir():  # a folder is not ours, and stays
                path.unlink(missing_ok=True)
            self._digests.pop(name, None)

    def _path(self, file_name: str) -> Path:
        """Names are names: none leads out of the folder."""
        return self._folder / Path(file_name).name


def _signature(status: os.stat_result) -> Signature:
    """Changes whenever a file is written to."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _to_row(prefix: SavedPrefix) -> dict[str, object]:
    row = asdict(prefix)
    row["model_id"] = prefix.model_id.encode("utf-8", "backslashreplace").decode()
    row["boundaries"] = " ".join(prefix.boundaries)
    row["boundary_tokens"] = " ".join(map(str, prefix.boundary_tokens))
    return row


def _to_prefix(row: dict[str, object]) -> SavedPrefix | None:
    """None where the row is none that ``_to_row`` made."""
    boundaries = str(row["boundaries"]).split()
    try:
        boundary_tokens = [int(each) for each in str(row["boundary_tokens"]).split()]
        values = row | {"boundaries": boundaries, "boundary_tokens": boundary_tokens}
        prefix = msgspec.convert(values, SavedPrefix)
    except (ValueError, msgspec.ValidationError):
        return None
    return prefix if boundaries and len(boundaries) == len(boundary_tokens) else None
