"""The endpoints of the OpenAI dialect."""

from __future__ import annotations

from typing import Any

import msgspec
from autotune.errors import AutotuneError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from autotune_shim.exchange import Dialect, Exchange, Headers
from autotune_shim.generation import GenerationEndpoint, client_of
from autotune_shim.http import response_of
from autotune_shim.openai.chat_answer import ChatStream, ChatWhole
from autotune_shim.openai.chat_request import read_chat_request
from autotune_shim.openai.completion_answer import CompletionStream, CompletionWhole
from autotune_shim.openai.completion_request import read_completion_request
from autotune_shim.openai.errors import refuse
from autotune_shim.openai.models import model_list, model_object
from autotune_shim.stream import Pace


def routes(pace: Pace) -> list[BaseRoute]:
    """The routes, for ``app``."""
    chat = GenerationEndpoint(Dialect(read=read_chat, refuse=refuse), pace)
    completion = GenerationEndpoint(Dialect(read=read_completion, refuse=refuse), pace)
    return [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completion, methods=["POST"]),
        Route("/v1/models", list_models, methods=["GET"]),
        Route("/v1/models/{model:path}", get_model, methods=["GET"]),
    ]


def read_chat(body: bytes, headers: Headers) -> Exchange:
    """A chat completion, and how it is to be answered."""
    fields, request = read_chat_request(body, headers)
    if fields.stream:
        return Exchange(request, ChatStream(includes_usage=fields.includes_usage, profile=request.profile))
    return Exchange(request, ChatWhole(profile=request.profile))


def read_completion(body: bytes, headers: Headers) -> Exchange:
    """A completion, and how it is to be answered."""
    fields, request = read_completion_request(body, headers)
    if fields.stream:
        return Exchange(
            request, CompletionStream(includes_usage=fields.includes_usage, profile=request.profile)
        )
    return Exchange(request, CompletionWhole(profile=request.profile))


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    try:
        found = await client_of(request.scope).list_models()
    except AutotuneError as error:
        return response_of(refuse(error))
    return _json(model_list(found.models, found.default_model))


async def get_model(request: Request) -> Response:
    """GET /v1/models/{id}."""
    try:
        model = await client_of(request.scope).get_model(request.path_params["model"])
    except AutotuneError as error:
        return response_of(refuse(error))
    return _json(model_object(model))


def _json(value: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
