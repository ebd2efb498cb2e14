"""How the fake daemon refuses a call: as the real one's interceptor does."""

from __future__ import annotations

from typing import NoReturn

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from tests.fakes.fake_messages import rich_status


def abort(context: grpc.ServicerContext, status: status_pb2.Status) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort returned")


def require(context: grpc.ServicerContext, field: str, sound: bool, problem: str) -> None:
    if not sound:
        abort(
            context,
            rich_status(
                grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", f"{field}: {problem}", field=field
            ),
        )
