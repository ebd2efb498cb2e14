"""Work that comes back: a table of (id, every, coroutine), run by APScheduler on the event loop.

``daemon`` enters it last and leaves it first. Invariants: a job never overlaps itself; one that
fails is logged and comes again at its next turn, and the others never notice; nothing wakes between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from autotuned.log import fields

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """``run`` is awaited every ``every_seconds``, the first time after that long, or ``at_once``."""

    id: str
    every_seconds: float
    run: Callable[[], Awaitable[None]]
    at_once: bool = False


class Jobs:
    """Runs its jobs while it is entered. Leaving it cancels those that run and waits for their end."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = tuple(jobs)
        self._running: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._scheduler = AsyncIOScheduler(timezone=UTC)  # not every machine can tell its own
        # A job that takes longer than its pause misses a turn, as it should: that is no warning.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)

    async def __aenter__(self) -> Self:
        """Starts the clock of every job."""
        for job in self._jobs:
            trigger = IntervalTrigger(seconds=job.every_seconds, timezone=UTC)
            self._scheduler.add_job(
                self._run,
                trigger,  # an object: a name would make APScheduler read every installed package
                args=(job,),
                id=job.id,
                name=job.id,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
                **({"next_run_time": datetime.now(UTC)} if job.at_once else {}),
            )
        self._scheduler.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._scheduler.pause()
        await asyncio.sleep(0)  # a job that was just submitted begins, and sees that it comes too late
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running)
        self._scheduler.shutdown(wait=False)
        await asyncio.sleep(0)  # it ends itself with the loop's next turn

    async def _run(self, job: Job) -> None:
        task = asyncio.current_task()
        if self._closing or task is None:
            return
        self._running.add(task)
        try:
            await job.run()
        except asyncio.CancelledError:
            if not self._closing:
                raise
        except Exception:  # noqa: BLE001 - whatever it is, the other jobs go on
            _log.exception("job failed", extra=fields(job=job.id))
        finally:
            self._running.discard(task)
