"""``/_double``: what tests ask of the double itself, and make it do.

GET  /_double              what was loaded and unloaded, the instances, the requests
POST /_double/arm          {"fault": name}: the next request that gets there has it
POST /_double/release      what hangs goes on
POST /_double/crash        {"instance_id": id}: the engine of an instance is killed
POST /_double/die          the whole server is gone at once
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from tests.fakes.lmstudio.faults import FAULTS, die

if TYPE_CHECKING:
    from tests.fakes.lmstudio.program import Server


async def answer(server: Server, method: str, path: str, raw: bytes) -> Response:
    """Answers one request of a test."""
    instances, faults = server.inference.instances, server.inference.faults
    body = json.loads(raw) if raw else {}
    match method, path.removeprefix("/_double"):
        case "GET", "":
            return JSONResponse(
                {
                    "loads": instances.loads,
                    "unloads": instances.unloads,
                    "instances": [instance.to_json() for instance in instances.all.values()],
                    "requests": list(server.requests),
                    "active_requests": server.active_requests_count,
                    "armed": faults.armed,
                }
            )
        case "POST", "/arm" if body.get("fault") in FAULTS:
            faults.arm(body["fault"])
        case "POST", "/release":
            faults.release()
        case "POST", "/crash" if body.get("instance_id") in instances.all:
            instances.all[body["instance_id"]].process.kill()
        case "POST", "/die":
            die()
        case _:
            return JSONResponse({"error": f"the double has no {method} {path} with {body}"}, 400)
    return JSONResponse({})
