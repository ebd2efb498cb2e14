"""The gRPC server: every service, health and reflection on one Unix socket.

``daemon`` makes one. Invariant: health says SERVING only between ``serve`` and ``stop``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from autotune.v1 import (
    daemon_service_pb2,
    daemon_service_pb2_grpc,
    engine_service_pb2,
    engine_service_pb2_grpc,
    inference_service_pb2,
    inference_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    system_service_pb2,
    system_service_pb2_grpc,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from autotuned.rpc.daemon import DaemonServicer
from autotuned.rpc.engines import EngineServicer
from autotuned.rpc.inference import InferenceServicer
from autotuned.rpc.interceptor import ErrorInterceptor
from autotuned.rpc.models import ModelServicer
from autotuned.rpc.registry import RegistryServicer
from autotuned.rpc.system import SystemServicer

LARGEST_MESSAGE_BYTES = 64 * 1024 * 1024
_SERVICES = tuple(
    service.full_name
    for file in (
        inference_service_pb2,
        model_service_pb2,
        registry_service_pb2,
        engine_service_pb2,
        system_service_pb2,
        daemon_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
)


class RpcServer:
    """Binds the servicers to a socket."""

    def __init__(
        self,
        *,
        inference: InferenceServicer,
        models: ModelServicer,
        registry: RegistryServicer,
        engines: EngineServicer,
        system: SystemServicer,
        daemon: DaemonServicer,
    ) -> None:
        self._server = grpc.aio.server(
            interceptors=(ErrorInterceptor(),),
            options=(
                ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
                ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
            ),
        )
        self._health = health.aio.HealthServicer()
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(inference, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, self._server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(registry, self._server)
        engine_service_pb2_grpc.add_EngineServiceServicer_to_server(engines, self._server)
        system_service_pb2_grpc.add_SystemServiceServicer_to_server(system, self._server)
        daemon_service_pb2_grpc.add_DaemonServiceServicer_to_server(daemon, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def bind(self, socket: Path) -> None:
        """Listens on the socket, readable by its owner alone, not yet SERVING."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server.add_insecure_port(f"unix:{socket}")
        await self._server.start()
        await asyncio.to_thread(socket.chmod, 0o600)

    async def serve(self) -> None:
        """Everything is ready: says so."""
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def refuse(self) -> None:
        """Tells watchers of health that the daemon goes away."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Ends calls that are still open after the grace, then closes the socket."""
        await self._server.stop(grace_seconds)

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", *_SERVICES):
            await self._health.set(name, status)
