"""Which endpoint does what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes.lmstudio import openai_routes, rest_v0, rest_v1
from tests.fakes.lmstudio.inference import Inference
from tests.fakes.lmstudio.rest_v1_chat import Chat

Json = dict[str, Any]
Handler = Callable[[Request, Json], Awaitable[Response]]


def routes(inference: Inference, *, v1: bool) -> dict[tuple[str, str], Handler]:
    """The handlers by method and path; without ``v1`` those of a server before 0.4.0."""
    found = {
        ("GET", "/api/v0/models"): _reading(inference, rest_v0.list_models),
        ("POST", "/api/v0/chat/completions"): _completing(inference, chat=True, detailed=True),
        ("POST", "/api/v0/completions"): _completing(inference, chat=False, detailed=True),
        ("POST", "/api/v0/embeddings"): _embedding(inference),
        ("GET", "/v1/models"): _reading(inference, openai_routes.list_models),
        ("POST", "/v1/chat/completions"): _completing(inference, chat=True, detailed=False),
        ("POST", "/v1/completions"): _completing(inference, chat=False, detailed=False),
        ("POST", "/v1/embeddings"): _embedding(inference),
    }
    if v1:
        found |= {
            ("GET", "/api/v1/models"): _reading(inference, rest_v1.list_models),
            ("POST", "/api/v1/models/load"): _doing(inference, rest_v1.load),
            ("POST", "/api/v1/models/unload"): _doing(inference, rest_v1.unload),
            ("POST", "/api/v1/chat"): Chat(inference=inference).answer,
        }
    return found


# The rest of the path is the name of a model, which may have slashes.
NAMED = {"/api/v0/models/": rest_v0.get_model, "/v1/models/": openai_routes.get_model}


def named(inference: Inference, path: str) -> Response | None:
    """The answer to a request about one model, if it is one."""
    for prefix, describe in NAMED.items():
        if path.startswith(prefix):
            return JSONResponse(describe(inference, path.removeprefix(prefix)))
    return None


def _reading(inference: Inference, read: Callable[[Inference], Json]) -> Handler:
    async def handle(_request: Request, _body: Json) -> Response:
        return JSONResponse(read(inference))

    return handle


def _doing(inference: Inference, do: Callable[[Inference, Json], Awaitable[Json]]) -> Handler:
    async def handle(_request: Request, body: Json) -> Response:
        return JSONResponse(await do(inference, body))

    return handle


def _completing(inference: Inference, *, chat: bool, detailed: bool) -> Handler:
    async def handle(request: Request, body: Json) -> Response:
        return await inference.answer(request, body, chat=chat, detailed=detailed)

    return handle


def _embedding(inference: Inference) -> Handler:
    async def handle(_request: Request, body: Json) -> Response:
        raise openai_routes.no_embeddings(inference, body.get("model"))

    return handle
