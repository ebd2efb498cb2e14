"""From a started worker to one that serves.

``engine`` awaits ``until_serving`` once for each load. Invariant: it ends with ``ModelLoadFailed`` when the
worker dies or shows no progress, and never ends the worker itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from autotuned.core.errors import ModelLoadFailed
from autotuned.core.model import LoadPhase, LoadProgress
from autotuned.core.ports import Clock
from autotuned.engines.load_watch import LoadWatch, work_of
from autotuned.engines.mlx.log import WorkerLog
from autotuned.engines.mlx.protocol import LoadReport
from autotuned.engines.process import WorkerProcess
from autotuned.log import fields

# How often a worker that says nothing is looked at.
LOOK_SECONDS = 0.5

_log = logging.getLogger(__name__)


async def until_serving(
    worker: WorkerProcess[WorkerLog],
    *,
    clock: Clock,
    stall_seconds: float,
    on_progress: Callable[[LoadProgress], None],
) -> LoadReport:
    """Tells the phases and returns what the worker reports. Raises ``ModelLoadFailed``."""
    watch = LoadWatch(
        worker,
        clock=clock,
        stall_seconds=stall_seconds,
        option="mlx.load_timeout_seconds",
        progress_of=work_of,
        on_progress=on_progress,
    )
    while (report := worker.log.report) is None:
        worker.news.clear()
        watch.tell(worker.log.phase)
        if worker.is_gone:
            raise await _died(worker)
        watch.check_moving()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await worker.news.wait()
        except TimeoutError:
            continue
    watch.tell(LoadPhase.READY)
    return report


async def _died(worker: WorkerProcess[WorkerLog]) -> ModelLoadFailed:
    cause = await worker.wait_gone()
    _log.warning("load failed", extra=fields(cause=cause, engine_lines="\n".join(worker.log.lines)))
    sentence = worker.log.first_error or cause
    return ModelLoadFailed(f"MLX could not load the model: {sentence}; check the files and the memory.")
