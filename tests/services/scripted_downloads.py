"""A downloader whose every step waits for the test.

As strict as the real one: a download fetches once and only while it is open, it tells nothing once it was closed,
and it is gone only when its close has returned. Closing it twice is allowed, and cancelling a close does not stop it.
"""

from __future__ import annotations

import asyncio

from autotuned.core.download import Downloaded, DownloadPhase, DownloadProgress, Offer
from autotuned.core.errors import ModelNotFound
from autotuned.core.model import EMBEDDED_ENGINE

GIB = 1 << 30


def offer(model_id="tiny", engine=EMBEDDED_ENGINE, size_bytes=2_000_000, **fields):
    """All of it is weights, and none of it is here."""
    return Offer(
        **{
            "model_id": model_id,
            "engine": engine,
            "quantization": "Q4_K_M",
            "size_bytes": size_bytes,
            "weights_bytes": size_bytes,
            "missing_bytes": size_bytes,
            "files_count": 2,
            "folder": "/models",
            "free_bytes": 100 * GIB,
        }
        | fields
    )


class ScriptedDownload:
    """One download. ``may_end`` unset holds up its end, as a process that takes its time."""

    def __init__(self, what, arrive):
        self._offer = what
        self._arrive = arrive
        self._outcome = asyncio.get_running_loop().create_future()
        self._on_progress = None
        self._closing = None
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.fetches_count = 0
        self.closes_count = 0
        self.is_cancelled = False

    @property
    def offer(self):
        return self._offer

    @property
    def is_fetching(self):
        return self._on_progress is not None

    @property
    def has_outcome(self):
        return self._outcome.done()

    @property
    def is_gone(self):
        return self._closing is not None and self._closing.done()

    async def fetch(self, on_progress):
        assert self._closing is None, "it was closed"
        assert not self.fetches_count, "it was fetched"
        self.fetches_count += 1
        self._on_progress = on_progress
        try:
            fetched_bytes = await self._outcome
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        finally:
            self._on_progress = None
            await self.close()
        return Downloaded(
            model_id=self._offer.model_id,
            engine=self._offer.engine,
            size_bytes=self._offer.size_bytes,
            fetched_bytes=fetched_bytes,
        )

    async def close(self):
        self.closes_count += 1
        if self._closing is None:
            self._closing = asyncio.create_task(self._end())
        await asyncio.shield(self._closing)

    async def _end(self):
        await self.may_end.wait()

    def tell(self, done_bytes, phase=DownloadPhase.DOWNLOADING, detail=""):
        assert self._on_progress is not None, "nothing of it runs"
        total_bytes = self._offer.size_bytes
        self._on_progress(
            DownloadProgress(phase=phase, done_bytes=done_bytes, total_bytes=total_bytes, detail=detail)
        )

    def finish(self, fetched_bytes=None):
        """All is here: the engine lists the model before anybody is told."""
        self._arrive(self._offer)
        self._outcome.set_result(self._offer.missing_bytes if fetched_bytes is None else fetched_bytes)

    def fail(self, error):
        self._outcome.set_exception(error)


class ScriptedDownloader:
    """``sources`` are offers, or errors, by reference; others are not found. ``may_find`` holds up the answer.

    ``arrive`` is called with the offer of what was downloaded.
    """

    def __init__(self, sources=None, arrive=lambda _: None):
        self.sources = dict(sources or {})
        self.arrive = arrive
        self.may_find = asyncio.Event()
        self.may_find.set()
        self.finding = []
        self.asked = []
        self.downloads = []
        self.cancelled_finds_count = 0

    @property
    def running(self):
        return [*self.finding, *(each for each in self.downloads if not each.is_gone)]

    async def find(self, reference):
        self.asked.append(reference.text)
        self.finding.append(reference.text)
        try:
            await asyncio.sleep(0)
            await self.may_find.wait()
        except asyncio.CancelledError:
            self.cancelled_finds_count += 1
            raise
        finally:
            self.finding.remove(reference.text)
        found = self.sources.get(reference.text)
        if found is None:
            raise ModelNotFound.elsewhere(reference.text, f"{reference.text} is not there.")
        if isinstance(found, Exception):
            raise found
        download = ScriptedDownload(found, self.arrive)
        self.downloads.append(download)
        return download
