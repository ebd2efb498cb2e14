"""Requests for text: which instance answers, and how its answer comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from tests.fakes.lmstudio.chunks import Answer
from tests.fakes.lmstudio.faults import Faults
from tests.fakes.lmstudio.instances import Instance, Instances
from tests.fakes.lmstudio.models import ModelFile, find_models
from tests.fakes.lmstudio.openai_requests import engine_body
from tests.fakes.lmstudio.problems import Problem, message_of, openai_problem, text_problem
from tests.fakes.lmstudio.settings import Settings

Json = dict[str, Any]
Result = TypeVar("Result")
# Pieces of a stream before a fault in the middle of it.
PIECES_BEFORE_FAULT = 2


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


@dataclass(slots=True, kw_only=True)
class Inference:
    """Answers requests with the instances there are, or with one that it loads for them."""

    settings: Settings
    instances: Instances
    faults: Faults

    def models(self) -> dict[str, ModelFile]:
        """The models on disk."""
        return find_models(Path(self.settings.models_folder))

    async def instance(self, name: Any, ttl_seconds: float | None = None) -> Instance:
        """The instance with this id, or one of the model with this key, loaded if it is not.

        Raises:
            Problem: no model has this name, or it is not loaded and may not be.
        """
        if name in self.instances.all:
            return self.instances.all[name]
        models = self.models()
        if name not in models:
            raise openai_problem(
                400,
                f'Invalid model identifier "{name}". Please specify a valid downloaded model '
                f"(e.g., {', '.join(models)}).",
                code="model_not_found",
                param="model",
            )
        if there := self.instances.of_model(name):
            return there[0]
        if not self.settings.jit_loading:
            raise text_problem(
                "No models loaded. Please load a model in the developer page or use the 'lms load' command."
            )
        return await self.instances.load_just_in_time(models[name], ttl_seconds)

    async def answer(self, request: Request, body: Json, *, chat: bool, detailed: bool) -> Response:
        """The answer to a completion; ``detailed`` is the form of ``/api/v0``.

        Raises:
            Problem: it is refused before its first byte.
        """
        told = engine_body(body, chat=chat)
        await until_left(request, self.faults.before_headers())
        instance = await self.instance(body.get("model"), body.get("ttl"))
        answer = Answer(model=instance.id, chat=chat)
        if told["stream"]:
            options = body.get("stream_options") or {}
            events = self._events(
                instance, answer, told, include_usage=bool(options.get("include_usage")), detailed=detailed
            )
            return Events(request, events)
        async with self.instances.busy(instance):
            whole = await until_left(request, complete(instance, told, chat=chat))
        return JSONResponse(answer.whole(whole, None) | (details(instance, answer) if detailed else {}))

    async def _events(
        self, instance: Instance, answer: Answer, told: Json, *, include_usage: bool, detailed: bool
    ) -> AsyncIterator[bytes]:
        sent = 0
        try:
            async with self.instances.busy(instance):
                async for chunk in stream(instance, told, chat=answer.chat):
                    for piece in answer.pieces(chunk):
                        yield event(piece)
                        sent += 1
                        if sent == PIECES_BEFORE_FAULT and (error := await self.faults.mid_stream()):
                            yield event(error, name="error")
                            return
        except Problem as problem:
            if not (self.settings.silent_overflow and is_overflow(problem)):
                yield event({"error": {"message": message_of(problem)}}, name="error")
                return
            answer.finish_reason = "stop"
            answer.usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        more = details(instance, answer) if detailed else None
        for piece in answer.last_pieces(include_usage=include_usage, details=more):
            yield event(piece)
        yield b"data: [DONE]\n\n"


def event(data: Json, *, name: str | None = None) -> bytes:
    """A server-sent event."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def details(instance: Instance, answer: Answer) -> Json:
    """What ``/api/v0`` adds to an answer."""
    return {
        "stats": answer.stats(),
        "model_info": {
            "arch": instance.model.architecture,
            "quant": instance.model.quantization,
            "format": "gguf",
            "context_length": instance.config.context_length,
        },
        "runtime": {"name": "llama.cpp-double", "version": "1.0.0", "supported_formats": ["gguf"]},
    }


async def complete(instance: Instance, told: Json, *, chat: bool) -> Json:
    """A whole answer of the engine.

    Raises:
        Problem: the engine refuses, or is gone.
    """
    try:
        response = await instance.client.post(_target(chat=chat), json=told)
    except httpx.TransportError as error:
        raise instance.lost() from error
    if response.status_code != httpx.codes.OK:
        raise refusal(response.json(), instance)
    found: Json = response.json()
    return found


async def stream(instance: Instance, told: Json, *, chat: bool) -> AsyncIterator[Json]:
    """The chunks of the engine.

    Raises:
        Problem: the engine refuses, or is gone.
    """
    try:
        async with instance.client.stream("POST", _target(chat=chat), json=told) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise refusal(response.json(), instance)
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))
    except httpx.TransportError as error:
        raise instance.lost() from error


def _target(*, chat: bool) -> str:
    return "/v1/chat/completions" if chat else "/v1/completions"


def refusal(body: Json, instance: Instance) -> Problem:
    """What LM Studio makes of an error of its engine."""
    error = body["error"]
    if error["type"] != "exceed_context_size_error":
        return text_problem(error["message"])
    return text_problem(
        f"Trying to keep the first {error['n_prompt_tokens']} tokens when context the overflows. However, the "
        f"model is loaded with context length of only {instance.config.context_length} tokens, which is not "
        "enough. Try to load the model with a larger context length, or provide a shorter input"
    )


def is_overflow(problem: Problem) -> bool:
    """Whether the prompt was longer than the context."""
    return message_of(problem).startswith("Trying to keep")


async def until_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of the work, which is cancelled when the client leaves."""
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait([task, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        for either in (task, leaving):
            either.cancel()
        await asyncio.wait([task, leaving])


class Events(StreamingResponse):
    """A stream of events that ends when its client leaves, in the middle of a wait, too."""

    def __init__(self, request: Request, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._request = request

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Sends the events."""
        await until_left(self._request, self.stream_response(send))


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
