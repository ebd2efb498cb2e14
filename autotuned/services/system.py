"""How machine and daemon stand: snapshots, once or as a stream.

Called by ``rpc.system``, ``rpc.models`` and the start of the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from autotuned.core.model import RunningModel
from autotuned.core.ports import Clock, Machine
from autotuned.core.snapshot import Snapshot
from autotuned.services.inference import Inference
from autotuned.services.model_actor import ModelActor
from autotuned.services.models import Models
from autotuned.services.prefixes import Prefixes
from autotuned.services.residency import Residency

HEARTBEAT_SECONDS = 15.0


class System:
    """Joins the machine's readings with the models in memory and the prefixes on disk."""

    def __init__(
        self,
        *,
        machine: Machine,
        residency: Residency,
        models: Models,
        inference: Inference,
        prefixes: Prefixes,
        clock: Clock,
    ) -> None:
        self._machine = machine
        self._residency = residency
        self._prefixes = prefixes
        self._models = models
        self._inference = inference
        self._clock = clock
        self._stopping = asyncio.Event()

    def running_models(self) -> list[RunningModel]:
        """The models in memory or on their way into it, with who runs and who waits."""
        return [self.running_model(actor) for actor in self._models.running()]

    def running_model(self, actor: ModelActor) -> RunningModel:
        """One of them."""
        return self._models.describe(actor, self._inference.queued_for(actor.model_id))

    async def snapshot(self) -> Snapshot:
        """Reads everything now."""
        return Snapshot(
            taken_at=self._clock.now(),
            machine=await self._machine.read(),
            pressure=self._residency.pressure,
            saved_prefixes_count=self._prefixes.saved_count,
            saved_prefixes_bytes=self._prefixes.saved_bytes,
            running_models=tuple(self.running_models()),
            active_requests_count=self._inference.active_requests_count,
            queued_requests_count=self._inference.queued_requests_count,
        )

    async def watch(self, interval_seconds: float) -> AsyncGenerator[Snapshot | None, None]:
        """Yields a snapshot at once and one each interval; None is a heartbeat in a long interval.

        Ends when the daemon stops.
        """
        while not self._stopping.is_set():
            yield await self.snapshot()
            left_seconds = interval_seconds
            while left_seconds > 0 and not await self._stops_within(min(left_seconds, HEARTBEAT_SECONDS)):
                left_seconds -= HEARTBEAT_SECONDS
                if left_seconds > 0:
                    yield None

    def end_watches(self) -> None:
        """Ends every stream of ``watch``."""
        self._stopping.set()

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True
