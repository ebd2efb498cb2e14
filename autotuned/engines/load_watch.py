"""A load as whoever waits for it sees it: its phases, told in order, and whether it still moves.

The engines with workers of their own make one for each load. Invariant: every phase is told once, however
fast it was over; a load that shows no progress for too long has failed.
"""

from __future__ import annotations

from collections.abc import Callable

import psutil

from autotuned.core.errors import ModelLoadFailed
from autotuned.core.model import LoadPhase, LoadProgress
from autotuned.core.ports import Clock
from autotuned.engines.output import Output
from autotuned.engines.process import Log, WorkerProcess

# The phases of a worker; a load that waits for memory has none yet.
PHASES = (LoadPhase.STARTING, LoadPhase.READING_WEIGHTS, LoadPhase.ALLOCATING, LoadPhase.READY)

Progress = tuple[float, ...]
"""Numbers of a process that change while it gets on."""


class LoadWatch:
    """``option`` is the one to raise where the disk is slow; ``progress_of`` tells what a process did."""

    def __init__(
        self,
        worker: WorkerProcess[Log],
        *,
        clock: Clock,
        stall_seconds: float,
        option: str,
        progress_of: Callable[[int], Progress],
        on_progress: Callable[[LoadProgress], None],
    ) -> None:
        self._log: Output = worker.log
        self._process_id: Callable[[], int] = lambda: worker.process_id
        self._clock = clock
        self._stall_seconds = stall_seconds
        self._option = option
        self._progress_of = progress_of
        self._on_progress = on_progress
        self._started_at = self._moved_at = clock.monotonic()
        self._untold = list(PHASES)
        self._phase = LoadPhase.STARTING
        self._moved: Progress = ()

    def tell(self, phase: LoadPhase) -> None:
        """Tells this phase, and those before it that were over too soon to be seen."""
        self._phase = phase
        while self._untold and PHASES.index(self._untold[0]) <= PHASES.index(phase):
            elapsed_seconds = self._clock.monotonic() - self._started_at
            self._on_progress(LoadProgress(self._untold.pop(0), elapsed_seconds))

    def check_moving(self) -> None:
        """A line that it writes is progress, too. Raises ``ModelLoadFailed`` where nothing moved."""
        moved = (self._log.bytes_count, *self._progress_of(self._process_id()))
        now = self._clock.monotonic()
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        elif now - self._moved_at > self._stall_seconds:
            raise ModelLoadFailed(
                f"The engine made no progress for {self._stall_seconds:g} seconds ({self._phase.value}); "
                f"raise {self._option} if the disk is this slow."
            )


def memory_of(process_id: int) -> Progress:
    """Memory that a process has filled; nothing where it is gone."""
    try:
        return (psutil.Process(process_id).memory_info().rss,)
    except (psutil.Error, ValueError):
        return ()


def work_of(process_id: int) -> Progress:
    """Memory and processor time of a process; nothing where it is gone."""
    try:
        process = psutil.Process(process_id)
        return process.memory_info().rss, process.cpu_times().user
    except (psutil.Error, ValueError):
        return ()
