"""The double of LM Studio's server as a program.

    python -m tests.fakes.lmstudio.program '{"models_folder": ..., "port": ..., ...}'

``start`` starts it. Invariant: it ends when its standard input does, and its engines end with it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.fakes.lmstudio import double_routes
from tests.fakes.lmstudio.faults import Faults
from tests.fakes.lmstudio.inference import ClientLeft, Inference
from tests.fakes.lmstudio.instances import Instances
from tests.fakes.lmstudio.problems import Problem, text_problem, unauthorized
from tests.fakes.lmstudio.routes import Handler, named, routes
from tests.fakes.lmstudio.settings import Settings

KEPT_REQUESTS = 500


@dataclass(slots=True, kw_only=True)
class Server:
    """The application: every request goes through ``handle``."""

    settings: Settings
    inference: Inference
    routes: dict[tuple[str, str], Handler]
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT_REQUESTS))
    active_requests_count: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, from its head until its answer is sent or its client is gone."""
        request = Request(scope, receive)
        raw = await request.body()
        if request.url.path.startswith("/_double"):
            response = await double_routes.answer(self, request.method, request.url.path, raw)
            await response(scope, receive, send)
            return
        self.active_requests_count += 1
        try:
            response = await self.handle(request, raw)
            await response(scope, receive, send)
        except ClientLeft:
            pass  # there is nobody to answer
        finally:
            self.active_requests_count -= 1

    async def handle(self, request: Request, raw: bytes) -> Response:
        """The answer, in the way of the family of endpoints that it is for."""
        method, path = request.method, request.url.path
        self._record(request, raw)
        try:
            if self.settings.api_token not in (None, _token(request)):
                raise unauthorized()
            if (method, path) in self.routes:
                body = _parsed(raw) if method == "POST" else {}
                return await self.routes[method, path](request, body)
            found = named(self.inference, path) if method == "GET" else None
        except Problem as problem:
            return JSONResponse(problem.body, problem.status)
        # LM Studio says 200 even so.
        return found or JSONResponse({"error": f"Unexpected endpoint or method. ({method} {path})"})

    def _record(self, request: Request, raw: bytes) -> None:
        self.requests.append(
            {
                "method": request.method,
                "path": request.url.path,
                "authorization": request.headers.get("authorization"),
                "body": _for_tests(raw),
            }
        )


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme == "Bearer" else None


def _for_tests(raw: bytes) -> Any:
    """The body as JSON where it is, else as text."""
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise text_problem(f"Unexpected token in JSON: {error}") from error
    if not isinstance(body, dict):
        raise text_problem("The body has to be an object")
    return body


async def serve(settings: Settings) -> None:
    """Serves until the standard input ends."""
    faults = Faults()
    instances = Instances(settings=settings, faults=faults)
    inference = Inference(settings=settings, instances=instances, faults=faults)
    server = Server(settings=settings, inference=inference, routes=routes(inference, v1=settings.rest_v1))
    config = uvicorn.Config(
        server,
        host="127.0.0.1",
        port=settings.port,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    http = uvicorn.Server(config)
    watching = asyncio.ensure_future(_end_with_input(http))
    try:
        await http.serve()
    finally:
        watching.cancel()
        for instance in list(instances.all.values()):
            await instances.unload(instance, "ended")


async def _end_with_input(http: uvicorn.Server) -> None:
    """The end of the standard input is the end of this program."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    http.should_exit = True


if __name__ == "__main__":
    asyncio.run(serve(Settings.from_json(sys.argv[1])))
