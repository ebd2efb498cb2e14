"""One download that everybody shares who asks for the same: it ends when the last of them leaves.

``services.pulls`` makes them. Invariants: one download of a reference at a time; when nobody follows it any
more it is cancelled, and what came stays for the next; who is slow sees the newest progress and misses the
ones before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from autotuned.core.download import Downloaded, DownloadPhase, DownloadProgress, Offer, Reference
from autotuned.core.errors import ShuttingDown, SourceDenied, SourceUnreachable, Unsupported
from autotuned.core.ports import Clock, Download, Downloader, Engine
from autotuned.policy import rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """How far it has come. ``left_seconds`` None while nobody can tell."""

    progress: DownloadProgress
    bytes_per_second: int = 0
    left_seconds: float | None = None


class SharedPull:
    """``engine`` pulls by itself under ``engine_name``; None has the downloader fetch it."""

    def __init__(
        self,
        *,
        reference: Reference,
        downloader: Downloader,
        clock: Clock,
        engine: Engine | None = None,
        engine_name: str = "",
    ) -> None:
        self._reference = reference
        self._downloader = downloader
        self._clock = clock
        self._engine = engine
        self._engine_name = engine_name
        self._followers: set[asyncio.Event] = set()
        self._samples: tuple[rate.Sample, ...] = ()
        self._latest = Progressed(progress=DownloadProgress(phase=DownloadPhase.RESOLVING))
        self._offer: asyncio.Future[Offer | None] = asyncio.get_running_loop().create_future()
        self._agreed = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    @property
    def is_over(self) -> bool:
        """Whether it ended, or is being cancelled: nobody can follow it any more."""
        return self._task.done() or self._task.cancelling() > 0

    async def offer(self) -> Offer | None:
        """What would be downloaded; None where only the engine's server knows. Raises what ``find`` does."""
        await asyncio.wait([self._offer])
        if self._offer.cancelled():
            raise ShuttingDown
        return self._offer.result()

    def agree(self) -> None:
        """Somebody wants it: from now on it is fetched."""
        self._agreed.set()

    @contextmanager
    def following(self) -> Generator[asyncio.Event, None, None]:
        """Counts as somebody who wants it. The event is set whenever there is something new."""
        event = asyncio.Event()
        self._followers.add(event)
        try:
            yield event
        finally:
            self._followers.discard(event)
            if not self._followers:
                self._cancel()

    async def progress(self, event: asyncio.Event) -> AsyncGenerator[Progressed, None]:
        """The newest progress whenever there is one, until the end."""
        while not self._task.done():
            event.clear()
            yield self._latest
            await event.wait()

    async def result(self) -> Downloaded:
        """What came of it. Raises what the download raised."""
        await self.ended()
        if self._task.cancelled():
            raise ShuttingDown
        return self._task.result()

    async def ended(self) -> None:
        """Waits until nothing of it runs any more."""
        await asyncio.wait([self._task])

    async def end(self) -> None:
        """Cancels it and waits until nothing of it runs any more."""
        self._cancel()
        await self.ended()

    def on_end(self, call: Callable[[], object]) -> None:
        """``call`` is called once nothing of it runs any more, before anybody who waits for that goes on."""
        self._task.add_done_callback(lambda _: call())

    def _cancel(self) -> None:
        """Once: a second time would break off the end of it."""
        if not self.is_over:
            self._task.cancel()

    async def _run(self) -> Downloaded:
        download = await self._find()
        try:
            self._offer.set_result(download.offer if download else None)
            await self._agreed.wait()
            if self._engine is not None:
                if download is not None:
                    await download.close()  # it has told what it knows
                return await self._engine.pull(self._engine_name, self._advance)
            assert download is not None  # noqa: S101 - only an engine goes on without one
            return await download.fetch(self._advance)
        finally:
            if download is not None:
                await download.close()

    async def _find(self) -> Download | None:
        """An engine's server may reach what this daemon does not, and run what no engine of its own does."""
        if self._engine is not None and not self._engine.capabilities().is_local:
            return None
        try:
            return await self._downloader.find(self._reference)
        except (SourceUnreachable, SourceDenied, Unsupported):
            if self._engine is None:
                raise
            return None

    def _advance(self, progress: DownloadProgress) -> None:
        rated, left = 0, None
        if progress.phase is DownloadPhase.DOWNLOADING:
            sample = rate.Sample(self._clock.monotonic(), progress.done_bytes)
            self._samples = rate.kept(self._samples, sample)
            rated = rate.bytes_per_second(self._samples)
            left = rate.left_seconds(self._samples, progress.total_bytes)
        else:
            self._samples = ()
        self._latest = Progressed(progress=progress, bytes_per_second=rated, left_seconds=left)
        self._wake()

    def _ended(self, task: asyncio.Task[Downloaded]) -> None:
        error = None if task.cancelled() else task.exception()
        if not self._offer.done():
            if error is None:
                self._offer.cancel()
            else:
                self._offer.set_exception(error)
                self._offer.exception()  # who asked may have left
        self._wake()

    def _wake(self) -> None:
        for event in self._followers:
            event.set()
