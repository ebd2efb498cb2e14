"""DaemonService on the wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from autotune.v1 import daemon_service_pb2, daemon_service_pb2_grpc

from autotuned.core.ports import Engine
from autotuned.rpc.response import duration, timestamp

# What a client may rely on; names are added, never changed.
CAPABILITIES = (
    "chat",
    "raw-prompt",
    "tools",
    "json-schema",
    "logprobs",
    "count-tokens",
    "watch-snapshots",
    "plan-model",
    "prewarm",
    "no-swap",
    "keep-alive",
    "delete-prefixes",
    "engines",
    "findings",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFacts:
    """What the daemon says of itself. ``started_at`` is seconds since the epoch."""

    version: str
    process_id: int
    started_at: float
    startup_seconds: float
    data_directory: str
    runtime_directory: str
    log_file: str
    drain_seconds: float
    engines: tuple[Engine, ...]


class DaemonServicer(daemon_service_pb2_grpc.DaemonServiceServicer):
    """Answers from ``facts``, which is called anew each time; ``stop`` begins the shutdown."""

    def __init__(self, *, facts: Callable[[], DaemonFacts], stop: Callable[[], None]) -> None:
        self._facts = facts
        self._stop = stop

    async def GetInfo(  # noqa: N802 - the proto's name
        self, _request: daemon_service_pb2.GetInfoRequest, _context: grpc.aio.ServicerContext
    ) -> daemon_service_pb2.GetInfoResponse:
        """See the proto."""
        facts = self._facts()
        return daemon_service_pb2.GetInfoResponse(
            version=facts.version,
            process_id=facts.process_id,
            start_time=timestamp(facts.started_at),
            data_directory=facts.data_directory,
            runtime_directory=facts.runtime_directory,
            capabilities=CAPABILITIES,
            engines=[
                daemon_service_pb2.EngineInfo(name=engine.name, version=engine.version)
                for engine in facts.engines
            ],
            log_file=facts.log_file,
            startup_duration=duration(facts.startup_seconds),
        )

    async def Shutdown(  # noqa: N802 - the proto's name
        self, _request: daemon_service_pb2.ShutdownRequest, _context: grpc.aio.ServicerContext
    ) -> daemon_service_pb2.ShutdownResponse:
        """See the proto."""
        self._stop()
        return daemon_service_pb2.ShutdownResponse(drain_duration=duration(self._facts().drain_seconds))
