"""SystemService on the wire."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc
from autotune.v1 import system_service_pb2, system_service_pb2_grpc

from autotuned.core.errors import FieldInvalid
from autotuned.rpc.response import snapshot_message
from autotuned.services.system import System

if TYPE_CHECKING:
    from autotuned.services.hardware import HardwareReports

SHORTEST_INTERVAL_SECONDS = 0.1
LONGEST_INTERVAL_SECONDS = 3600.0
DEFAULT_INTERVAL_SECONDS = 1.0


class SystemServicer(system_service_pb2_grpc.SystemServiceServicer):
    """Converts and forwards; the service decides. ``reports`` builds its service with the first question."""

    def __init__(self, *, system: System, reports: Callable[[], HardwareReports]) -> None:
        self._system = system
        self._reports = reports

    async def GetSnapshot(  # noqa: N802 - the proto's name
        self, _request: system_service_pb2.GetSnapshotRequest, _context: grpc.aio.ServicerContext
    ) -> system_service_pb2.GetSnapshotResponse:
        """See the proto."""
        return system_service_pb2.GetSnapshotResponse(
            snapshot=snapshot_message(await self._system.snapshot())
        )

    async def WatchSnapshots(  # noqa: N802 - the proto's name
        self, request: system_service_pb2.WatchSnapshotsRequest, _context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[system_service_pb2.WatchSnapshotsResponse, None]:
        """See the proto."""
        sequence = 0
        async with aclosing(self._system.watch(_interval_seconds(request))) as snapshots:
            async for snapshot in snapshots:
                sequence += 1
                if snapshot is None:
                    yield system_service_pb2.WatchSnapshotsResponse(
                        sequence=sequence, heartbeat=system_service_pb2.Heartbeat()
                    )
                else:
                    yield system_service_pb2.WatchSnapshotsResponse(
                        sequence=sequence, snapshot=snapshot_message(snapshot)
                    )

    async def GetHardware(  # noqa: N802 - the proto's name
        self, _request: system_service_pb2.GetHardwareRequest, _context: grpc.aio.ServicerContext
    ) -> system_service_pb2.GetHardwareResponse:
        """See the proto."""
        from autotuned.rpc.hardware import hardware_response  # noqa: PLC0415 - as what it tells of: on demand

        return hardware_response(await self._reports().report())


def _interval_seconds(request: system_service_pb2.WatchSnapshotsRequest) -> float:
    if not request.HasField("interval_duration"):
        return DEFAULT_INTERVAL_SECONDS
    seconds = request.interval_duration.seconds + request.interval_duration.nanos / 1e9
    if not SHORTEST_INTERVAL_SECONDS <= seconds <= LONGEST_INTERVAL_SECONDS:
        raise FieldInvalid("interval_duration", f"{seconds:g} s is out of range; use 0.1 s to 1 h.")
    return seconds
