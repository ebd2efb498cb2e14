"""From a started worker to one that serves.

``engine`` awaits ``until_serving`` once for each load. Invariant: it ends with ``ModelLoadFailed`` when the
worker dies or shows no progress, and never ends the worker itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import psutil

from autotuned.core.errors import ModelLoadFailed
from autotuned.core.model import LoadPhase, LoadProgress
from autotuned.core.ports import Clock
from autotuned.engines.mlx.log import WorkerLog
from autotuned.engines.mlx.protocol import LoadReport
from autotuned.engines.process import WorkerProcess
from autotuned.log import fields

# How often a worker that says nothing is looked at.
LOOK_SECONDS = 0.5
PHASES = (LoadPhase.STARTING, LoadPhase.READING_WEIGHTS, LoadPhase.ALLOCATING, LoadPhase.READY)

_log = logging.getLogger(__name__)


async def until_serving(
    worker: WorkerProcess[WorkerLog],
    *,
    clock: Clock,
    stall_seconds: float,
    on_progress: Callable[[LoadProgress], None],
) -> LoadReport:
    """Tells the phases and returns what the worker reports. Raises ``ModelLoadFailed``."""
    wait = _Wait(worker, clock=clock, stall_seconds=stall_seconds, on_progress=on_progress)
    while (report := worker.log.report) is None:
        worker.news.clear()
        wait.tell(worker.log.phase)
        if worker.is_gone:
            raise await _died(worker)
        wait.check_moving()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await worker.news.wait()
        except TimeoutError:
            continue
    wait.tell(LoadPhase.READY)
    return report


class _Wait:
    """One wait: tells each phase once, and gives up when nothing moves."""

    def __init__(
        self,
        worker: WorkerProcess[WorkerLog],
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
        self._untold = list(PHASES)
        self._phase = LoadPhase.STARTING
        self._moved = (0, 0, 0.0)

    def tell(self, phase: LoadPhase) -> None:
        """Tells this phase, and those before it that were over too soon to be seen."""
        self._phase = phase
        while self._untold and PHASES.index(self._untold[0]) <= PHASES.index(phase):
            elapsed_seconds = self._clock.monotonic() - self._started_at
            self._on_progress(LoadProgress(self._untold.pop(0), elapsed_seconds))

    def check_moving(self) -> None:
        """A line, memory that is filled and time on a processor are progress. Raises ``ModelLoadFailed``."""
        moved = (self._worker.log.bytes_count, *_work_of(self._worker.process_id))
        now = self._clock.monotonic()
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        elif now - self._moved_at > self._stall_seconds:
            raise ModelLoadFailed(
                f"The engine made no progress for {self._stall_seconds:g} seconds ({self._phase.value}); "
                "raise mlx.load_timeout_seconds if the disk is this slow."
            )


def _work_of(process_id: int) -> tuple[int, float]:
    """Memory and processor time of a process; zeros where it is gone."""
    try:
        process = psutil.Process(process_id)
        return int(process.memory_info().rss), float(process.cpu_times().user)
    except (psutil.Error, ValueError):
        return 0, 0.0


async def _died(worker: WorkerProcess[WorkerLog]) -> ModelLoadFailed:
    cause = await worker.wait_gone()
    _log.warning("load failed", extra=fields(cause=cause, engine_lines="\n".join(worker.log.lines)))
    sentence = worker.log.first_error or cause
    return ModelLoadFailed(f"MLX could not load the model: {sentence}; check the files and the memory.")
