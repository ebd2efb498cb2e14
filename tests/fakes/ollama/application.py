"""The HTTP application: endpoints, errors in the original's words, counting, planned faults."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fakes.ollama.control import PREFIX, control_routes
from tests.fakes.ollama.exchange import send_json
from tests.fakes.ollama.models import Store
from tests.fakes.ollama.observer import Observer
from tests.fakes.ollama.ollama import Ollama
from tests.fakes.ollama.problems import Problem
from tests.fakes.ollama.pull import Puller
from tests.fakes.ollama.routes import json_response, routes
from tests.fakes.ollama.scheduler import Scheduler
from tests.fakes.ollama.settings import Settings

_LOCAL_ENDINGS = (".localhost", ".local", ".internal")
_GIN_TEXTS = {404: "404 page not found", 405: "405 method not allowed"}


def application(settings: Settings) -> ASGIApp:
    """A server for uvicorn; its runners live as long as its lifespan."""
    observer = Observer(reload_seconds=settings.reload_seconds)
    scheduler = Scheduler(settings, observer)
    store = Store(settings.models)
    puller = Puller(store, settings.registry)
    server = Ollama(settings, store, scheduler, observer, puller)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await puller.close()
        await scheduler.close()

    inner = Starlette(
        routes=[*routes(server), *control_routes(server)],
        exception_handlers={Problem: _problem, HTTPException: _no_route},
        lifespan=lifespan,
    )
    return _Gate(inner, observer)


class _Gate:
    """Counts requests and plays the faults that come before the headers."""

    def __init__(self, inner: ASGIApp, observer: Observer) -> None:
        self._inner = inner
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(PREFIX):
            await self._inner(scope, receive, send)
            return
        if not _local(dict(scope["headers"]).get(b"host", b"").decode()):
            await PlainTextResponse("", 403)(scope, receive, send)
            return
        path = scope["path"]
        self._observer.requests[path] += 1
        self._observer.active[path] += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._observer.active[path] -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults = self._observer.faults
        fault = faults.take(scope["path"])
        scope["double.transport"] = send.__self__.transport
        await asyncio.sleep(faults.header_seconds)
        if fault is None or fault.after is not None:
            scope["double.fault"] = fault
            await self._inner(scope, receive, send)
        elif fault.kind == "error":
            await send_json(send, {"error": fault.message}, fault.status)
        else:
            if fault.kind == "hang":
                await _released_or_gone(faults.released, receive)
            scope["double.transport"].abort()


async def _released_or_gone(released: asyncio.Event, receive: Receive) -> None:
    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    waits = {asyncio.create_task(released.wait()), asyncio.create_task(gone())}
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _local(host: str) -> bool:
    """Whether the client asked for this machine: against web pages that reach for it."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    name = name.strip("[]").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in {"", "localhost"} or name.endswith(_LOCAL_ENDINGS)
    return address.is_loopback or address.is_private or address.is_unspecified


async def _problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return json_response({"error": problem.message}, problem.status)


async def _no_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(_GIN_TEXTS.get(error.status_code, error.detail), error.status_code)
