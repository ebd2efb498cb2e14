"""Downloads of files, which pulls share: as long as somebody waits for one, it goes on.

``pull`` has one ``BlobDownloads``. Invariant: what came is kept in ``-partial``, with how much that is in
``-partial-0``, as the original keeps a file of one part (all below 100 MB have one), until the whole is there;
nothing is verified here. Its waits between tries are a hundredth of the original's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from tests.fakes.ollama import model_store
from tests.fakes.ollama.problems import Problem
from tests.fakes.ollama.registry_client import RegistryClient, pause

TICK_SECONDS = 0.06
_TRIES = 6
_URL_TRIES = 10


class _DiskFull(Problem):
    """The disk takes no more: no other try is made."""


class BlobDownloads:
    """The downloads that are under way, by digest."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._running: dict[str, _Download] = {}

    async def close(self) -> None:
        """Ends all of them."""
        for download in tuple(self._running.values()):
            await download.end()

    async def lines(self, client: RegistryClient, digest: str) -> AsyncGenerator[dict[str, Any], None]:
        """What is told until the file is there, nothing of one that comes at once. Raises ``Problem``."""
        path = model_store.blob_path(self._store, digest)
        if path.exists():
            size = path.stat().st_size
            yield _line(digest, size, size)
            return
        download = self._running.get(digest)
        if download is None:
            download = self._running[digest] = _Download(client, digest, path)
            try:
                await download.prepare()
            except BaseException as error:
                del self._running[digest]
                download.problem = error
                raise
            download.start(lambda: self._running.pop(digest, None))
        async with aclosing(download.wait()) as lines:
            async for line in lines:
                yield line


class _Download:
    def __init__(self, client: RegistryClient, digest: str, path: Path) -> None:
        self._client = client
        self._digest = digest
        self._path = path
        self._partial = path.with_name(f"{path.name}-partial")
        self._note = path.with_name(f"{path.name}-partial-0")
        self._total = self._completed = 0
        self._waiting_count = 0
        self._task: asyncio.Task[None] | None = None
        self.problem: BaseException | None = None

    async def prepare(self) -> None:
        """Takes up what an earlier one left, else asks how large the file is. Raises ``Problem``."""
        if self._note.exists():
            kept = json.loads(self._note.read_text())
            self._total, self._completed = kept["Size"], kept["Completed"]
            return
        self._total = await self._client.blob_size(self._digest)
        self._keep()

    def start(self, forget: Any) -> None:
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: forget())

    async def wait(self) -> AsyncGenerator[dict[str, Any], None]:
        """A line at each tick until it has ended; the last one to leave ends it."""
        self._waiting_count += 1
        try:
            while not await self._has_ended():
                yield _line(self._digest, self._total, self._completed)
        finally:
            self._waiting_count -= 1
            if not self._waiting_count:
                await self.end()

    async def _has_ended(self) -> bool:
        """Waits for a tick; who came while another pull asks for its size waits, too. Raises ``Problem``."""
        if self.problem is not None:
            raise Problem("context canceled")
        if self._task is None:
            await asyncio.sleep(TICK_SECONDS)
            return False
        done, _ = await asyncio.wait([self._task], timeout=TICK_SECONDS)
        for task in done:
            task.result()
        return bool(done)

    async def end(self) -> None:
        """Breaks it off, where it still runs."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self._total)
            url = await self._url()
            await self._fetch(descriptor, url)
        finally:
            os.close(descriptor)
        self._note.unlink()
        self._partial.rename(self._path)

    async def _url(self) -> str:
        for number in range(1, _URL_TRIES):
            try:
                return await self._client.blob_url(self._digest)
            except Problem as problem:
                # What the registry answered well and is of no use ends it; the rest is tried again.
                if "Location" in problem.message or "unexpected status" in problem.message:
                    raise
            await pause(number * number * 0.01)
        raise Problem("context deadline exceeded")

    async def _fetch(self, descriptor: int, url: str) -> None:
        last = Problem("EOF")
        for number in range(_TRIES):
            if self._completed == self._total:
                return
            try:
                await self._fetch_once(descriptor, url)
            except _DiskFull:
                raise
            except Problem as problem:
                last = problem
                await pause(2.0**number)
            else:
                return
        raise Problem(f"max retries exceeded: {last.message}")

    async def _fetch_once(self, descriptor: int, url: str) -> None:
        """One answer. What came of one that broke off stays, unless it was the answer's own end."""
        before = self._completed
        try:
            async with aclosing(self._client.part(url, before, self._total - 1)) as pieces:
                async for piece in pieces:
                    wanted = piece[: self._total - self._completed]
                    self._write(descriptor, wanted, self._completed)
                    self._completed += len(wanted)
        except Problem as problem:
            if problem.message != "unexpected EOF":
                self._completed = before
            raise
        finally:
            self._keep()
        if self._completed < self._total:
            self._completed = before
            self._keep()
            raise Problem("EOF")

    def _write(self, descriptor: int, piece: bytes, offset: int) -> None:
        try:
            os.pwrite(descriptor, piece, offset)
        except OSError as error:
            words = os.strerror(error.errno or 0).lower()
            raise _DiskFull(f"write {self._partial}: {words}") from error

    def _keep(self) -> None:
        self._note.parent.mkdir(parents=True, exist_ok=True)
        part = {"N": 0, "Offset": 0, "Size": self._total, "Completed": self._completed}
        self._note.write_text(json.dumps(part, separators=(",", ":")) + "\n")


def _line(digest: str, total: int, completed: int) -> dict[str, Any]:
    """What is zero is left out, as there."""
    line: dict[str, Any] = {"status": f"pulling {digest[7:19]}", "digest": digest}
    counts = {"total": total, "completed": completed}
    return line | {name: value for name, value in counts.items() if value}
