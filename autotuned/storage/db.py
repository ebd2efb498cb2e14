"""The one database file and the one thread that owns it.

``daemon`` opens it; the other files of ``storage`` run their statements through ``run``.
Invariant: what ``run`` has returned from is on the disk (``synchronous=FULL``), and no event loop
ever waits for SQLite.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from peewee import PeeweeException, SqliteDatabase

from autotuned.core.errors import StorageFull
from autotuned.storage.errors import DatabaseDamaged, DataFolderUnusable, StorageFailed
from autotuned.storage.migrations import migrate

T = TypeVar("T")

log = logging.getLogger(__name__)

_BUSY_SECONDS = 5
_PRAGMAS = (
    ("journal_mode", "WAL"),
    ("synchronous", "FULL"),
    ("fullfsync", 1),  # without it a Mac's fsync stops at the drive's cache
    ("foreign_keys", 1),
)
_SPACE_NEEDED_BYTES = 256 * 1024  # less than this is free: SQLite's I/O error means a full disk
_PRIMARY_CODE_MASK = 0xFF  # SQLite's extended codes keep the primary one in the low byte


class Database:
    """Opens, migrates and closes ``path``; its folder is made when it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sqlite = SqliteDatabase(str(path), pragmas=_PRAGMAS, timeout=_BUSY_SECONDS)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")

    async def __aenter__(self) -> Self:
        """Raises ``StorageFull``, or ``DataFolderUnusable`` and its subclasses."""
        try:
            await self._on_thread(self._open)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await asyncio.shield(self._on_thread(self._close))
        finally:
            self._thread.shutdown()  # waits for the close where a cancel came first

    async def run(self, fn: Callable[[], T]) -> T:
        """Runs ``fn`` on the thread; it executes its queries on ``sqlite``.

        Raises ``StorageFull``, or ``StorageFailed`` for whatever else SQLite objects to. A cancel
        leaves it open whether the statement took place.
        """

        def guarded() -> T:
            try:
                return fn()
            except (PeeweeException, sqlite3.Error, OSError) as error:
                if self._is_full(error):
                    raise self._full() from error
                raise StorageFailed(
                    f"The database {self.path} failed ({error}); check the disk and try again."
                ) from error

        return await self._on_thread(guarded)

    async def _on_thread(self, fn: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, fn)

    def _open(self) -> None:
        try:
            self._make_file()
            self.sqlite.connect()
            connection: sqlite3.Connection = self.sqlite.connection()  # type: ignore[no-untyped-call] # peewee's
            migrate(connection, self.path)
        except OSError as error:
            if self._is_full(error):
                raise self._full() from error
            raise DataFolderUnusable(
                f"The data folder {self.path.parent} cannot be used ({error.strerror}); "
                "make it writable for you, or set AUTOTUNE_DATA_DIR to another folder."
            ) from error
        except (PeeweeException, sqlite3.Error) as error:
            raise self._open_error(error) from error

    def _make_file(self) -> None:
        """The file exists before SQLite opens it, so that it never has a mode wider than 0600."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)

    def _open_error(self, error: Exception) -> Exception:
        if self._is_full(error):
            return self._full()
        if _sqlite_code(error) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
            return DatabaseDamaged(
                f"{self.path} is damaged or no database; move it away to start with an empty one."
            )
        return DataFolderUnusable(
            f"The database {self.path} cannot be opened ({error}); end what else uses it and check that "
            "its folder is writable, or set AUTOTUNE_DATA_DIR to another folder."
        )

    def _close(self) -> None:
        """What cannot be moved from the write-ahead log to the file now is moved at the next start."""
        if self.sqlite.is_closed():
            return
        try:
            self.sqlite.pragma("wal_checkpoint(TRUNCATE)")
        except PeeweeException as error:
            log.warning("checkpoint failed: %s", error)
        self.sqlite.close()

    def _is_full(self, error: BaseException) -> bool:
        if isinstance(error, OSError):
            return error.errno == ENOSPC
        code = _sqlite_code(error)
        if code == sqlite3.SQLITE_IOERR:
            with suppress(OSError):
                disk = os.statvfs(self.path.parent)
                return disk.f_bavail * disk.f_frsize < _SPACE_NEEDED_BYTES
        return code == sqlite3.SQLITE_FULL

    def _full(self) -> StorageFull:
        return StorageFull(
            f"The disk of {self.path.parent} is full; free some space there, "
            "or set AUTOTUNE_DATA_DIR to a folder on another disk.",
            folder=str(self.path.parent),
        )


def _sqlite_code(error: BaseException | None) -> int | None:
    """SQLite's primary result code of an error or of what caused it."""
    while error is not None:
        if isinstance(error, sqlite3.Error):
            code: int | None = getattr(error, "sqlite_errorcode", None)  # absent where Python itself raised
            return None if code is None else code & _PRIMARY_CODE_MASK
        error = error.__cause__ or error.__context__
    return None
