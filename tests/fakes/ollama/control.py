"""``/_double``: where tests read the counters and order what goes wrong. Not Ollama's.

GET  /_double          counters, warnings, last bodies, runners with their shapes and environment
POST /_double/hang     {"after": lines or null for before the headers, "path", "times"}
POST /_double/close    the same: the connection is closed
POST /_double/error    the same, and {"message", "status"}: a status, or a line inside the stream
POST /_double/delay    {"reload_seconds", "header_seconds", "line_seconds"}
POST /_double/die      {"what": "server" or "runners"}: killed as by the kernel
POST /_double/clear    nothing goes wrong any more; what hangs is closed
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.fakes.ollama.observer import Fault
from tests.fakes.ollama.ollama import Ollama
from tests.fakes.ollama.routes import json_response

PREFIX = "/_double"
_DELAYS = ("reload_seconds", "header_seconds", "line_seconds")


def control_routes(server: Ollama) -> list[Route]:
    control = _Control(server)
    return [
        Route(PREFIX, control.page, methods=["GET"]),
        Route(PREFIX + "/{order}", control.order, methods=["POST"]),
    ]


class _Control:
    def __init__(self, server: Ollama) -> None:
        self._server = server

    async def page(self, _request: Request) -> Response:
        settings = asdict(self._server.settings) | {"models": str(self._server.settings.models)}
        found = {"runners": self._server.scheduler.described(), "settings": settings}
        return json_response(self._server.observer.page() | found)

    async def order(self, request: Request) -> Response:
        wanted: dict[str, Any] = json.loads(await request.body() or b"{}")
        faults = self._server.observer.faults
        order = request.path_params["order"]
        if order in {"hang", "close", "error"}:
            faults.planned.append(
                Fault(
                    kind=order,
                    after=wanted.get("after"),
                    times=wanted.get("times", 1),
                    path=wanted.get("path"),
                    message=wanted.get("message", "the double was told to fail"),
                    status=wanted.get("status", 500),
                )
            )
        elif order == "delay":
            for name in set(_DELAYS) & set(wanted):
                setattr(faults, name, wanted[name])
        elif order == "clear":
            faults.clear()
        elif order == "die" and wanted.get("what") == "runners":
            for loaded in self._server.scheduler.loaded:
                loaded.runner.kill()
        elif order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            return Response("no such order", 404)
        return json_response({})
