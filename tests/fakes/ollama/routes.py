"""The endpoints, by path."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.fakes.ollama import answers, requests
from tests.fakes.ollama.chat import chat_lines, fold_chat
from tests.fakes.ollama.describe import listed, shown
from tests.fakes.ollama.exchange import Exchange, Line, Lines, Whole, encoded
from tests.fakes.ollama.generate import fold_generate, generate_lines
from tests.fakes.ollama.names import parse_name
from tests.fakes.ollama.ollama import Ollama
from tests.fakes.ollama.problems import NotFound, Problem


def routes(server: Ollama) -> list[Route]:
    """All of Ollama's endpoints that there are."""
    endpoints = _Endpoints(server)
    return [
        Route("/", endpoints.root, methods=["GET", "HEAD"]),
        Route("/api/version", endpoints.version, methods=["GET", "HEAD"]),
        Route("/api/tags", endpoints.tags, methods=["GET", "HEAD"]),
        Route("/api/ps", endpoints.running, methods=["GET"]),
        Route("/api/show", endpoints.show, methods=["POST"]),
        Route("/api/chat", endpoints.chat, methods=["POST"]),
        Route("/api/generate", endpoints.generate, methods=["POST"]),
        Route("/api/embed", endpoints.embed, methods=["POST"]),
        Route("/api/pull", endpoints.pull, methods=["POST"]),
        Route("/api/delete", endpoints.delete, methods=["DELETE"]),
    ]


def json_response(value: Line, status: int = 200) -> Response:
    return Response(encoded(value), status, media_type="application/json; charset=utf-8")


class _Endpoints:
    def __init__(self, server: Ollama) -> None:
        self._server = server

    async def root(self, _request: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def version(self, _request: Request) -> Response:
        return json_response({"version": self._server.settings.version})

    async def tags(self, _request: Request) -> Response:
        return json_response({"models": [listed(model) for model in self._server.store.all()]})

    async def running(self, _request: Request) -> Response:
        loaded = sorted(self._server.scheduler.loaded, key=lambda each: -each.expiry())
        return json_response(
            {
                "models": [
                    {
                        "name": each.wanted.model.name.shortest,
                        "model": each.wanted.model.name.shortest,
                        "size": each.runner.size,
                        "digest": each.wanted.model.digest,
                        "details": each.wanted.model.details,
                        "expires_at": answers.go_time(int(each.expiry() * 1e9)),
                        "size_vram": each.runner.size_vram,
                        "context_length": each.runner.context_length,
                    }
                    for each in loaded
                ]
            }
        )

    async def show(self, request: Request) -> Response:
        body = requests.decode(await request.body(), "ShowRequest", requests.SHOW)
        name = body.get("model") or body.get("name")
        if not name:
            raise Problem("model is required", 400)
        try:
            model = self._server.store.find(name)
        except NotFound as error:
            raise NotFound(parse_name(name).shortest) from error
        verbose = body.get("verbose", False)
        return json_response(shown(model, verbose=verbose, system=body.get("system", "")))

    async def delete(self, request: Request) -> Response:
        body = requests.decode(await request.body(), "DeleteRequest", requests.NAMED)
        name = body.get("model") or body.get("name") or ""
        if not name.strip():
            raise Problem("model is required", 400)
        if not parse_name(name).valid:
            raise Problem(f'name "{name}" is invalid', 400)
        self._server.store.delete(self._server.store.find(name))
        return Response()

    async def chat(self, request: Request) -> Exchange:
        body = await self._body(request, "ChatRequest", requests.CHAT)
        return self._exchange(body, chat_lines(self._server, body), lambda lines: fold_chat(body, lines))

    async def generate(self, request: Request) -> Exchange:
        body = await self._body(request, "GenerateRequest", requests.GENERATE)
        return self._exchange(body, generate_lines(self._server, body), fold_generate)

    async def embed(self, request: Request) -> Exchange:
        body = await self._body(request, "EmbedRequest", requests.EMBED)
        return self._exchange(body, self._embedded(body), lambda lines: lines[-1])

    async def pull(self, request: Request) -> Exchange:
        body = await self._body(request, "PullRequest", requests.NAMED)
        return self._exchange(body, self._server.puller.lines(body), lambda lines: lines[-1])

    async def _body(self, request: Request, type_name: str, fields: Any) -> dict[str, Any]:
        raw = await request.body()
        body = requests.decode(raw, type_name, fields)
        self._server.observer.bodies.append({"path": request.url.path, "body": json.loads(raw)})
        return body

    def _exchange(self, body: dict[str, Any], lines: Lines, fold: Any) -> Exchange:
        return Exchange(lines, observer=self._server.observer, stream=body.get("stream", True), fold=fold)

    async def _embedded(self, body: dict[str, Any]) -> AsyncIterator[Line | Whole]:
        watch = answers.Stopwatch()
        wanted = body.get("input") or []
        inputs = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(inputs, list) or not all(isinstance(each, str) for each in inputs):
            raise Problem("invalid input type", 400)
        try:
            model = self._server.store.find(body.get("model", ""))
        except NotFound as error:
            raise Problem(f'model "{body.get("model", "")}" not found, try pulling it first', 404) from error
        async with self._server.runner(model, body, self._server.options(model, body)) as runner:
            watch.loaded()
            if not inputs:
                yield Whole({"model": body["model"], "embeddings": []})
                return
            vectors, tokens_count = [], 0
            for text in inputs:
                async with runner.turns:
                    answer = await _embedding(runner, text)
                vectors.append(answer["data"][0]["embedding"])
                tokens_count += answer["usage"]["prompt_tokens"]
        counted = watch.times() | {"prompt_eval_count": tokens_count}
        yield Whole({"model": body["model"], "embeddings": vectors} | counted)


async def _embedding(runner: Any, text: str) -> Line:
    try:
        return await runner.call("/v1/embeddings", {"input": text})
    except Problem as problem:
        try:
            message = json.loads(problem.message)["error"]["message"]
        except (ValueError, LookupError, TypeError):
            raise problem from None
        raise Problem(message, problem.status) from problem
