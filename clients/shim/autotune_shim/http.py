"""The small change of HTTP: the request's body and headers, a whole answer.

Invariant: a body past the limit is refused while it arrives, and never held.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from autotune_shim.exchange import Headers, HttpReply, RequestInvalid

BODY_LIMIT_BYTES = 64 * 1024 * 1024
"""What the daemon takes in one message."""


class ClientGone(Exception):
    """The client closed the connection; nobody reads an answer."""


def headers_of(scope: Scope) -> Headers:
    """The request headers by lower-case name; the last one of a name wins."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def read_body(receive: Receive, headers: Headers, limit_bytes: int = BODY_LIMIT_BYTES) -> bytes:
    """The whole body. Raises RequestInvalid with status 413 past the limit, ClientGone."""
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    pieces: list[bytes] = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def send_reply(send: Send, reply: HttpReply) -> None:
    """Sends a whole answer."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def response_of(reply: HttpReply) -> Response:
    """The answer for endpoints that return one."""
    headers = {name.decode(): value.decode() for name, value in reply.headers}
    return Response(reply.body, reply.status, headers, "application/json")


def _too_large(limit_bytes: int) -> RequestInvalid:
    return RequestInvalid(
        f"The body is larger than {limit_bytes // 1024**2} MiB; send less at once.",
        code="request_too_large",
        status=413,
    )
