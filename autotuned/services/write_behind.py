"""Writes values to storage in the background, so that nobody waits for a disk.

``services.learning`` and ``services.sessions`` hold one each. Invariant: of each key the latest value
is written, at most once in an interval, and what is left when it closes is written then; what cannot be
written waits in bounded memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from autotuned.core.errors import AutotuneError
from autotuned.log import fields

# Values that wait for a disk that has no room.
MOST_WAITING = 1024

T = TypeVar("T")

_log = logging.getLogger(__name__)


class WriteBehind(Generic[T]):
    """Latest values by key, on their way to ``write``. ``what`` names them in the log."""

    def __init__(
        self, *, what: str, write: Callable[[str, T], Awaitable[None]], interval_seconds: float
    ) -> None:
        self._what = what
        self._write = write
        self._interval_seconds = interval_seconds
        self._dirty: dict[str, T] = {}
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    def put(self, key: str, value: T) -> None:
        """Remembers to write; never waits."""
        self._dirty[key] = value
        if len(self._dirty) > MOST_WAITING:
            del self._dirty[next(iter(self._dirty))]
        if self._task is None and not self._closing.is_set():
            self._task = asyncio.create_task(self._run(), name=f"write {self._what}")

    async def close(self) -> None:
        """Writes what is left and returns when that is done."""
        self._closing.set()
        if self._task is not None:
            await self._task
        await self._write_all()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._interval_seconds):
                await self._closing.wait()
        except TimeoutError:
            await self._write_all()
        finally:
            self._task = None
            if self._dirty and not self._failed and not self._closing.is_set():
                self._task = asyncio.create_task(self._run(), name=f"write {self._what}")

    async def _write_all(self) -> None:
        """A value that cannot be written waits for the next one; the first failure alone is logged."""
        dirty, self._dirty = self._dirty, {}
        failed: AutotuneError | None = None
        for key, value in dirty.items():
            try:
                await self._write(key, value)
            except AutotuneError as error:
                self._dirty.setdefault(key, value)
                failed = error
        if failed is not None and not self._failed:
            _log.error("nothing is written", extra=fields(what=self._what, reason=failed.reason))
        self._failed = failed is not None
