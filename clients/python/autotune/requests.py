"""What both clients send and return beyond the wire messages themselves. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import duration_pb2

from autotune.errors import encoding_checked
from autotune.v1 import model_pb2, model_service_pb2, system_service_pb2

PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class ModelList:
    """All models by id, and the id of the one that a request without a model gets."""

    models: list[model_pb2.Model]
    default_model: str


def get_model_request(model: str) -> model_service_pb2.GetModelRequest:
    """Asks for one model. Raises FieldInvalid for a name that is no Unicode."""
    with encoding_checked("model"):
        return model_service_pb2.GetModelRequest(model=model)


def unload_model_request(model: str) -> model_service_pb2.UnloadModelRequest:
    """Unloads one model. Raises FieldInvalid for a name that is no Unicode."""
    with encoding_checked("model"):
        return model_service_pb2.UnloadModelRequest(model=model)


def load_model_request(model: str, context_tokens: int | None = None) -> model_service_pb2.LoadModelRequest:
    """Loads one model. Raises FieldInvalid for what cannot be put on the wire."""
    with encoding_checked("model"):
        return model_service_pb2.LoadModelRequest(model=model, context_tokens=context_tokens)


def watch_snapshots_request(interval_seconds: float) -> system_service_pb2.WatchSnapshotsRequest:
    """Watches with this interval. Raises FieldInvalid for one that is no duration."""
    with encoding_checked("interval_duration"):
        seconds, fraction = divmod(interval_seconds, 1)
        interval = duration_pb2.Duration(seconds=int(seconds), nanos=int(fraction * 1e9))
        return system_service_pb2.WatchSnapshotsRequest(interval_duration=interval)
