"""GET /health: whether the daemon serves, and how it stands. The same for all dialects."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from autotune.errors import AutotuneError
from autotune.v1.daemon_service_pb2 import GetInfoResponse
from autotune.v1.model_pb2 import ModelState
from autotune.v1.system_service_pb2 import Snapshot
from starlette.requests import Request
from starlette.responses import Response

from autotune_shim.generation import client_of


async def health(request: Request) -> Response:
    """200 with the state of the daemon, or 503 with the sentence that says why there is none."""
    client = client_of(request.scope)
    try:
        info, snapshot = await asyncio.gather(client.info(), client.snapshot())
    except AutotuneError as error:
        failure = {"status": "unavailable", "error": {"reason": error.reason, "message": error.message}}
        return Response(msgspec.json.encode(failure), 503, media_type="application/json")
    return Response(msgspec.json.encode(health_object(info, snapshot)), media_type="application/json")


def health_object(info: GetInfoResponse, snapshot: Snapshot) -> dict[str, Any]:
    """The body of a healthy answer."""
    return {
        "status": "ok",
        "version": info.version,
        "engines": [{"name": engine.name, "version": engine.version} for engine in info.engines],
        "queue": {
            "active_requests_count": snapshot.active_requests_count,
            "queued_requests_count": snapshot.queued_requests_count,
        },
        "memory": {
            "total_bytes": snapshot.memory_total_bytes,
            "available_bytes": snapshot.memory_available_bytes,
            "swap_used_bytes": snapshot.swap_used_bytes,
            "daemon_resident_bytes": snapshot.daemon_resident_memory_bytes,
        },
        "models": [
            {
                "id": model.id,
                "state": ModelState.Name(model.state).removeprefix("MODEL_STATE_").lower(),
                "context_tokens": model.shape.context_tokens,
            }
            for model in snapshot.running_models
        ],
    }
