"""One download as the daemon sees it: a process that is started, told to fetch, read from and ended.

``downloader`` makes one for each download. Nothing here knows HTTP. Invariant: a download that is closed,
cancelled or over has no process, and neither has one of a daemon that was killed: the worker ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from autotuned.core.download import Downloaded, DownloadPhase, DownloadProgress, Offer
from autotuned.core.errors import (
    AutotuneError,
    DownloadCorrupt,
    FieldInvalid,
    ModelNotFound,
    SourceDenied,
    SourceUnreachable,
    StorageFull,
    Unsupported,
)
from autotuned.engines.downloads.protocol import Done, Failed, Job, Line, Resolved, Step
from autotuned.engines.output import Output
from autotuned.log import fields

WORKER = Path(__file__).with_name("worker.py")
LONGEST_LINE_BYTES = 64 << 10
TERMINATE_SECONDS = 2.0

_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(Line).decode
_ERRORS: dict[str, type[AutotuneError]] = {
    error.reason: error
    for error in (Unsupported, SourceUnreachable, SourceDenied, DownloadCorrupt, StorageFull)
}


class WorkerDownload:
    """One download that was resolved."""

    def __init__(self, worker: DownloadWorker, line: Resolved) -> None:
        self._worker = worker
        self._offer = Offer(**msgspec.structs.asdict(line))

    @property
    def offer(self) -> Offer:
        """What would be fetched."""
        return self._offer

    async def fetch(self, on_progress: Callable[[DownloadProgress], None]) -> Downloaded:
        """Fetches it, as the port says; the worker is gone afterwards, whatever came of it."""
        try:
            self._worker.consent()
            while isinstance(line := await self._worker.line(), Step):
                on_progress(_progress(line))
            if not isinstance(line, Done):
                raise self._worker.nonsense()
        finally:
            await self.close()
        return Downloaded(
            model_id=self._offer.model_id,
            engine=self._offer.engine,
            size_bytes=self._offer.size_bytes,
            fetched_bytes=line.fetched_bytes,
        )

    async def close(self) -> None:
        """Ends the worker, and returns when it is gone."""
        await self._worker.close()


class DownloadWorker:
    """One process. ``name`` is what it downloads."""

    def __init__(self, name: str, job: Job, environment: Mapping[str, str]) -> None:
        self._name = name
        self._job = job
        self._environment = environment
        self._log = Output()
        self._stdout_lock = asyncio.Lock()
        self._starting: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts it; cancelled or not, ``close`` finds it. Raises ``SourceUnreachable``."""
        self._starting = asyncio.create_task(self._start())
        try:
            await asyncio.shield(self._starting)
        except OSError as error:
            raise SourceUnreachable(
                f"The process to download {self._name} cannot be started: {error.strerror}; try again."
            ) from error

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-B",
            str(WORKER),
            msgspec.json.encode(self._job).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE_BYTES,
            env=self._environment,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read_log(process))
        return process

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        rest = b""
        while data := await process.stderr.read(LONGEST_LINE_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._log.add(line.decode(errors="replace"))
            rest = rest[-LONGEST_LINE_BYTES:]
        self._log.add(rest.decode(errors="replace"))

    @property
    def _process(self) -> asyncio.subprocess.Process:
        assert self._starting is not None  # noqa: S101 - nobody has a worker that was not started
        return self._starting.result()

    def consent(self) -> None:
        """Has it fetch."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - it is a pipe
        stdin.write(b"\n")

    async def resolved(self) -> Resolved:
        """Its first line. Raises as ``line`` does."""
        line = await self.line()
        if not isinstance(line, Resolved):
            raise self.nonsense()
        return line

    async def line(self) -> Line:
        """The next line. Raises the error that it tells of, or ``SourceUnreachable`` where it is gone."""
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - it is a pipe
        try:
            async with self._stdout_lock:
                content = await stdout.readline()
        except ValueError as error:
            raise self.nonsense() from error
        if not content.endswith(b"\n"):
            raise await self._gone()
        try:
            line: Line = _decode(content)
        except msgspec.MsgspecError as error:
            raise self.nonsense() from error
        if isinstance(line, Failed):
            raise _error(self._name, line)
        return line

    def nonsense(self) -> AutotuneError:
        """For lines that no worker writes."""
        _log.error("a download's worker writes what it should not", extra=fields(model=self._name))
        return SourceUnreachable(
            f"The process that downloads {self._name} writes nonsense; pull again: what came is kept."
        )

    async def _gone(self) -> AutotuneError:
        status = await self._process.wait()
        if self._closing is not None:
            return SourceUnreachable(
                f"The download of {self._name} was broken off; pull again: what came is kept."
            )
        _log.error(
            "a download's worker ended without a result", extra=fields(model=self._name, status=status)
        )
        how = f"exited with status {status}" if status >= 0 else f"was killed by signal {-status}"
        return SourceUnreachable(
            f"The process that downloads {self._name} {how}; pull again: what came is kept, the log has more."
        )

    async def close(self) -> None:
        """Ends it, and returns when it is gone. Safe to call twice; cancelling it does not stop it."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._end())
        await asyncio.shield(self._closing)

    async def _end(self) -> None:
        if self._starting is None:
            return
        try:
            process = await self._starting
        except OSError:
            return
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        # Read to the end: a pipe that nobody reads would stay open.
        draining = asyncio.create_task(self._drain(process.stdout))
        _signal(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), TERMINATE_SECONDS)
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()
        if self._reading is not None:
            await self._reading
        await draining
        if self._log.lines:
            _log.warning(
                "what a download's worker wrote",
                extra=fields(model=self._name, lines="\n".join(self._log.lines)),
            )

    async def _drain(self, stdout: asyncio.StreamReader) -> None:
        async with self._stdout_lock:
            while await stdout.read(LONGEST_LINE_BYTES):
                pass


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        # It leads a process group of its own: whatever it started goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _progress(step: Step) -> DownloadProgress:
    return DownloadProgress(
        phase=DownloadPhase(step.phase),
        done_bytes=step.done_bytes,
        total_bytes=step.total_bytes,
        detail=step.detail,
    )


def _error(name: str, failed: Failed) -> AutotuneError:
    if failed.reason == ModelNotFound.reason:
        return ModelNotFound.elsewhere(name, failed.message)
    if failed.reason == FieldInvalid.reason:
        return FieldInvalid("model", failed.message)
    return _ERRORS.get(failed.reason, SourceUnreachable)(failed.message)
