"""From a started worker to one that serves what was planned.

``engine`` awaits ``until_ready`` once for each load.
Invariant: it returns only when the worker answers and its shape is the planned one; it ends with
``ModelLoadFailed`` when the worker dies or shows no progress, and never ends the worker itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from autotuned.core.errors import ModelLoadFailed
from autotuned.core.model import LoadPhase, LoadProgress
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Clock
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import ConnectionBroken, ConnectionSilent, fetch
from autotuned.engines.llamacpp.log import WorkerLog
from autotuned.engines.llamacpp.shape import applied_shape
from autotuned.engines.load_watch import LoadWatch, memory_of
from autotuned.engines.process import WorkerProcess
from autotuned.log import fields

# How often a worker that says nothing is asked whether it is ready.
POLL_SECONDS = 0.25
# How long a worker that loads may take to say so, and one that is ready to describe itself.
HEALTH_SECONDS = 1.0
ANSWER_SECONDS = 10.0
# How long a worker that answers may take to say that it serves; one that never says so works, too.
SAID_SECONDS = 0.5
# How long a broken connection waits to learn why the worker died.
CAUSE_SECONDS = 1.0
OK = 200

_log = logging.getLogger(__name__)


async def until_ready(
    worker: WorkerProcess[WorkerLog],
    planned: LoadShape,
    *,
    clock: Clock,
    stall_seconds: float,
    on_progress: Callable[[LoadProgress], None],
) -> LoadShape:
    """Waits for the worker and returns the shape that it reports. Raises ``ModelLoadFailed``."""
    wait = _Wait(worker, clock=clock, stall_seconds=stall_seconds, on_progress=on_progress)
    await wait.until_serving()
    applied = await wait.applied_shape(planned)
    wait.watch.tell(LoadPhase.READY)
    return applied


class _Wait:
    """One wait: tells the phases, and gives up when nothing moves."""

    def __init__(
        self,
        worker: WorkerProcess[WorkerLog],
        *,
        clock: Clock,
        stall_seconds: float,
        on_progress: Callable[[LoadProgress], None],
    ) -> None:
        self._worker = worker
        self.watch = LoadWatch(
            worker,
            clock=clock,
            stall_seconds=stall_seconds,
            option="llamacpp.load_timeout_seconds",
            progress_of=memory_of,
            on_progress=on_progress,
        )

    async def until_serving(self) -> None:
        """Returns when the worker answers. Raises ``ModelLoadFailed``."""
        while True:
            was_listening = self._worker.log.is_serving
            self.watch.tell(self._worker.log.phase)
            if self._worker.is_gone:
                raise await self._died()
            if await self._is_healthy():
                await self._until_said()
                return
            self.watch.check_moving()
            await self._wait_for_news(was_listening=was_listening)

    async def applied_shape(self, planned: LoadShape) -> LoadShape:
        """What the worker says of itself. Raises ``ModelLoadFailed``."""
        server = Endpoint.unix(self._worker.socket_path)
        try:
            _, props = await fetch(server, "GET", "/props", silence_seconds=ANSWER_SECONDS)
            _, slots = await fetch(server, "GET", "/slots", silence_seconds=ANSWER_SECONDS)
        except (ConnectionBroken, ConnectionSilent) as error:
            if await self._worker.gone_within(CAUSE_SECONDS):
                raise await self._died() from error
            raise ModelLoadFailed(f"The engine does not say what it loaded: {error}; try again.") from error
        return applied_shape(planned, props=props, slots=slots, report=self._worker.log.report)

    async def _is_healthy(self) -> bool:
        path = self._worker.socket_path
        if not self._worker.log.is_serving and not path.exists():
            return False
        try:
            status, _ = await fetch(Endpoint.unix(path), "GET", "/health", silence_seconds=HEALTH_SECONDS)
        except (ConnectionBroken, ConnectionSilent):
            return False
        return status == OK

    async def _until_said(self) -> None:
        """Lets it finish telling of the load: it answers a moment before its last lines are here."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SAID_SECONDS):
                while not (self._worker.is_gone or self._worker.log.is_serving):
                    self._worker.news.clear()
                    await self._worker.news.wait()

    async def _wait_for_news(self, *, was_listening: bool) -> None:
        """Lines that it writes are looked at as they come, but it is asked again only now and then."""
        deadline = asyncio.get_running_loop().time() + POLL_SECONDS
        while not self._worker.is_gone and self._worker.log.is_serving is was_listening:
            self._worker.news.clear()
            self.watch.tell(self._worker.log.phase)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._worker.news.wait()
            except TimeoutError:
                return

    async def _died(self) -> ModelLoadFailed:
        cause = await self._worker.wait_gone()
        log = self._worker.log
        _log.warning("load failed", extra=fields(cause=cause, engine_lines="\n".join(log.lines)))
        sentence = log.first_error or cause
        return ModelLoadFailed(
            f"The engine could not load the model: {sentence}; check the file and the memory."
        )
