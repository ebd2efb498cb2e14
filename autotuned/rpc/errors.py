"""The one bridge from exceptions to gRPC statuses.

Every status carries ``google.rpc.ErrorInfo`` with the reason that clients switch on; what to try
again carries ``RetryInfo``; a bad field carries ``BadRequest``.
"""

from __future__ import annotations

from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from autotuned.core.errors import (
    AutotuneError,
    ContextTooLong,
    DownloadCorrupt,
    EngineUnreachable,
    FieldInvalid,
    ModelInvalid,
    ModelLoadFailed,
    ModelNotFound,
    ModelTooLarge,
    QueueFull,
    ShuttingDown,
    SourceDenied,
    SourceUnreachable,
    StorageFull,
    Unsupported,
    WouldSwap,
)

DOMAIN = "autotune.v1"
DETAILS_KEY = "grpc-status-details-bin"

_CODES: dict[type[AutotuneError], grpc.StatusCode] = {
    ContextTooLong: grpc.StatusCode.INVALID_ARGUMENT,
    DownloadCorrupt: grpc.StatusCode.DATA_LOSS,
    EngineUnreachable: grpc.StatusCode.UNAVAILABLE,
    FieldInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    ModelInvalid: grpc.StatusCode.FAILED_PRECONDITION,
    ModelLoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    ModelTooLarge: grpc.StatusCode.FAILED_PRECONDITION,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ShuttingDown: grpc.StatusCode.UNAVAILABLE,
    SourceDenied: grpc.StatusCode.PERMISSION_DENIED,
    SourceUnreachable: grpc.StatusCode.UNAVAILABLE,
    StorageFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    # Trying again does not help before memory is free or the request asks for less: no RESOURCE_EXHAUSTED,
    # after which many clients do.
    WouldSwap: grpc.StatusCode.FAILED_PRECONDITION,
}


def status_of(error: AutotuneError) -> status_pb2.Status:
    """The rich status of an error."""
    code = _CODES.get(type(error), grpc.StatusCode.INTERNAL)
    status = status_pb2.Status(code=code.value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    details: list[Message] = [info]
    if isinstance(error, QueueFull):
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, FieldInvalid):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(context: grpc.aio.ServicerContext, error: AutotuneError) -> NoReturn:
    """Ends the call with the error's status; raises grpc's own AbortError."""
    status = status_of(error)
    code = _CODES.get(type(error), grpc.StatusCode.INTERNAL)
    await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))
    raise AssertionError("abort returned")
