"""The application: every dialect's routes over one connection to the daemon.

``server`` runs it; tests give it a scripted connection. It is Starlette's router without the rest of
Starlette, which would cost a megabyte. No CORS headers are sent: a browser lets no other site read
an answer.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from autotune import AsyncClient
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from autotune_shim.exchange import HttpReply, RequestInvalid
from autotune_shim.health import health
from autotune_shim.http import send_reply
from autotune_shim.openai import routes as openai
from autotune_shim.openai.errors import refuse
from autotune_shim.stream import Pace

_logger = logging.getLogger(__name__)

_METHOD_NOT_ALLOWED = 405


class App:
    """The ASGI application. ``open_client`` is called once, when it starts."""

    def __init__(
        self, open_client: Callable[[], AbstractAsyncContextManager[AsyncClient]], pace: Pace | None = None
    ) -> None:
        @asynccontextmanager
        async def lifespan(_: object) -> AsyncIterator[dict[str, AsyncClient]]:
            async with open_client() as client:
                yield {"client": client}

        self._router = Router(
            routes=[*openai.routes(pace or Pace()), Route("/health", health, methods=["GET"])],
            redirect_slashes=False,
            lifespan=lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Routes one request. What no endpoint answered is answered in the shape that most clients read."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        scope["app"] = self  # asks the router to raise what it cannot route
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            await send_reply(send, _no_route(scope, error))
        except Exception as error:
            _logger.exception("%s %s failed", scope["method"], scope["path"])
            await send_reply(send, refuse(error))


def _no_route(scope: Scope, error: HTTPException) -> HttpReply:
    """404, or 405 with the methods that the path takes."""
    method, path = scope["method"], scope["path"]
    if error.status_code != _METHOD_NOT_ALLOWED:
        return refuse(
            RequestInvalid(
                f"There is nothing at {path}; this server speaks OpenAI's API under /v1, and has /health.",
                code="unknown_url",
                status=error.status_code,
            )
        )
    allowed = (error.headers or {}).get("Allow", "")
    reply = refuse(
        RequestInvalid(
            f"{path} does not take {method}; use {allowed}.",
            code="method_not_allowed",
            status=_METHOD_NOT_ALLOWED,
        )
    )
    return HttpReply(reply.status, reply.body, (*reply.headers, (b"allow", allowed.encode())))
