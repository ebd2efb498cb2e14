"""Turns what a servicer raises into a status, for every method in one place.

Invariant: a client never sees a stack trace or an untyped error, and the daemon goes on serving.
A request that cannot be decoded becomes FIELD_INVALID before any servicer sees it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc

from autotuned.core.errors import AutotuneError, FieldInvalid
from autotuned.log import fields
from autotuned.rpc.errors import abort

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Undecodable:
    problem: str


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each method once and remembers the wrapped handler."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Grpc calls it for each RPC."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None or not method.startswith("/autotune."):
                return handler
            self._wrapped[method] = _wrap(handler)
        return self._wrapped[method]


def _wrap(handler: Any) -> Any:
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _guard_stream(handler.unary_stream),
            request_deserializer=_decoder(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
    return grpc.unary_unary_rpc_method_handler(
        _guard_unary(handler.unary_unary),
        request_deserializer=_decoder(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )


def _decoder(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode_or_explain(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception as error:  # noqa: BLE001 - protobuf raises its own DecodeError per implementation
            return _Undecodable(str(error))

    return decode_or_explain


def _guard_unary(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def guarded(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await method(_decoded(request), context)
        except Exception as error:  # noqa: BLE001 - the last boundary before the wire
            return await _abort(context, error)

    return guarded


def _guard_stream(method: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., AsyncIterator[Any]]:
    async def guarded(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        try:
            async with aclosing(method(_decoded(request), context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 - the last boundary before the wire
            await _abort(context, error)

    return guarded


def _decoded(request: Any) -> Any:
    if isinstance(request, _Undecodable):
        raise FieldInvalid("request", f"the message cannot be decoded ({request.problem}); send valid UTF-8.")
    return request


async def _abort(context: grpc.aio.ServicerContext, error: Exception) -> Any:
    if isinstance(error, AutotuneError):
        await abort(context, error)
    if isinstance(error, grpc.aio.AbortError):
        raise error
    log_id = uuid.uuid4().hex[:12]
    _log.error("unexpected error", exc_info=error, extra=fields(log_id=log_id))
    await abort(
        context,
        AutotuneError(
            f"The daemon met an unexpected error; its log has the details under {log_id}.", logId=log_id
        ),
    )
