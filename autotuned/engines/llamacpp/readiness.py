"""From a started worker to one that serves what was planned.

``engine`` awaits ``until_ready`` once for each load.
Invariant: it returns only when the worker answers and its shape is the planned one; it ends with
``ModelLoadFailed`` when the worker dies or shows no progress, and never ends the worker itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import psutil

from autotuned.core.errors import ModelLoadFailed
from autotuned.core.model import LoadPhase, LoadProgress
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Clock
from autotuned.engines.llamacpp.connection import ConnectionBroken, ConnectionSilent, fetch
from autotuned.engines.llamacpp.process import WorkerProcess
from autotuned.engines.llamacpp.shape import applied_shape
from autotuned.log import fields

# How often a worker that says nothing is asked whether it is ready.
POLL_SECONDS = 0.25
# How long a worker that loads may take to say so, and one that is ready to describe itself.
HEALTH_SECONDS = 1.0
ANSWER_SECONDS = 10.0
OK = 200

_log = logging.getLogger(__name__)


async def until_ready(
    worker: WorkerProcess,
    planned: LoadShape,
    *,
    clock: Clock,
    stall_seconds: float,
    on_progress: Callable[[LoadProgress], None],
) -> LoadShape:
    """Waits for the worker and returns the shape that it reports. Raises ``ModelLoadFailed``."""
    await _Wait(worker, clock=clock, stall_seconds=stall_seconds, on_progress=on_progress).run()
    try:
        _, props = await fetch(str(worker.socket_path), "GET", "/props", silence_seconds=ANSWER_SECONDS)
        _, slots = await fetch(str(worker.socket_path), "GET", "/slots", silence_seconds=ANSWER_SECONDS)
    except (ConnectionBroken, ConnectionSilent) as error:
        raise ModelLoadFailed(f"The engine does not say what it loaded: {error}; try again.") from error
    return applied_shape(planned, props=props, slots=slots, report=worker.log.report)


class _Wait:
    """One wait: tells the phases, and gives up when nothing moves."""

    def __init__(
        self,
        worker: WorkerProcess,
        *,
        clock: Clock,
        stall_seconds: float,
        on_progress: Callable[[LoadProgress], None],
    ) -> None:
        self._worker = worker
        self._clock = clock
        self._stall_seconds = stall_seconds
        self._on_progress = on_progress
        self._started_at = self._moved_at = clock.monotonic()
        self._phase: LoadPhase | None = None
        self._moved = (0, 0)

    async def run(self) -> None:
        """Returns when the worker serves. Raises ``ModelLoadFailed``."""
        while True:
            self._worker.news.clear()
            self._tell(self._worker.log.phase)
            if self._worker.is_gone:
                raise await self._died()
            if await self._serves():
                self._tell(LoadPhase.READY)
                return
            self._check_moving()
            await self._wait_for_news()

    async def _serves(self) -> bool:
        path = self._worker.socket_path
        if not self._worker.log.is_listening and not path.exists():
            return False
        try:
            status, _ = await fetch(str(path), "GET", "/health", silence_seconds=HEALTH_SECONDS)
        except (ConnectionBroken, ConnectionSilent):
            return False
        return status == OK

    async def _wait_for_news(self) -> None:
        """Until the engine listens, its lines are only worth looking at now and then."""
        deadline = asyncio.get_running_loop().time() + POLL_SECONDS
        while not (self._worker.is_gone or self._worker.log.is_listening):
            self._tell(self._worker.log.phase)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._worker.news.wait()
            except TimeoutError:
                return
            self._worker.news.clear()

    def _tell(self, phase: LoadPhase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self._on_progress(LoadProgress(phase, self._clock.monotonic() - self._started_at))

    def _check_moving(self) -> None:
        """A line that it writes is progress, and so is memory that it fills."""
        moved = (self._worker.log.bytes_count, self._resident_bytes())
        now = self._clock.monotonic()
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        elif now - self._moved_at > self._stall_seconds:
            raise ModelLoadFailed(
                f"The engine made no progress for {self._stall_seconds:g} seconds ({self._phase_text()}); "
                "raise llamacpp.load_timeout_seconds if the disk is this slow."
            )

    def _resident_bytes(self) -> int:
        try:
            return int(psutil.Process(self._worker.process_id).memory_info().rss)
        except (psutil.Error, ValueError):
            return 0

    def _phase_text(self) -> str:
        return self._phase.value if self._phase else LoadPhase.STARTING.value

    async def _died(self) -> ModelLoadFailed:
        cause = await self._worker.wait_gone()
        log = self._worker.log
        _log.warning("load failed", extra=fields(cause=cause, engine_lines="\n".join(log.lines)))
        sentence = log.first_error or cause
        return ModelLoadFailed(
            f"The engine could not load the model: {sentence}; check the file and the memory."
        )
