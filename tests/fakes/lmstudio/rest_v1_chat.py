"""``POST /api/v1/chat``: a conversation that the server keeps.

It takes the user's side alone: neither turns of an assistant nor tools of the client's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.fakes.lmstudio.chunks import Answer, short_id
from tests.fakes.lmstudio.inference import Events, Inference, complete, event, stream, until_left
from tests.fakes.lmstudio.instances import Instance
from tests.fakes.lmstudio.problems import Problem, message_of, rest_problem
from tests.fakes.lmstudio.rest_v1 import check_fields

Json = dict[str, Any]
SAMPLING = {"temperature": (int, float), "top_p": (int, float), "top_k": int, "min_p": (int, float)}
FIELDS = {
    "model": str,
    "input": object,
    "system_prompt": str,
    "integrations": list,
    "stream": bool,
    **SAMPLING,
    "repeat_penalty": (int, float),
    "max_output_tokens": int,
    "reasoning": str,
    "context_length": int,
    "store": bool,
    "previous_response_id": str,
    "ttl": (int, float),
}


@dataclass(slots=True, kw_only=True)
class Chat:
    """The conversations so far."""

    inference: Inference
    _stored: dict[str, list[Json]] = field(default_factory=dict)

    async def answer(self, request: Request, body: Json) -> Response:
        """The answer to one request.

        Raises:
            Problem: it is refused before its first byte.
        """
        check_fields(body, FIELDS, required="model")
        messages = self._messages(body)
        faults = self.inference.faults
        await until_left(request, faults.before_headers())
        loaded_before = set(self.inference.instances.all)
        instance = await self.inference.instance(body["model"], body.get("ttl"))
        told = self._engine_body(body, messages)
        if told["stream"]:
            load = instance.load_seconds if instance.id not in loaded_before else None
            return Events(request, self._events(instance, body, told, load))
        async with self.inference.instances.busy(instance):
            whole = await until_left(request, complete(instance, told, chat=True))
        answer = Answer(model=instance.id, chat=True)
        text = answer.whole(whole, None)["choices"][0]["message"]["content"]
        return JSONResponse(self._result(body, messages, answer, text))

    def _messages(self, body: Json) -> list[Json]:
        previous = body.get("previous_response_id")
        if previous is not None and previous not in self._stored:
            raise rest_problem(
                404,
                "invalid_request",
                f"No response '{previous}'",
                code="not_found",
                param="previous_response_id",
            )
        messages = [] if previous is None else list(self._stored[previous])
        if "system_prompt" in body:
            messages.insert(0, {"role": "system", "content": body["system_prompt"]})
        return [*messages, {"role": "user", "content": _text(body.get("input"))}]

    def _engine_body(self, body: Json, messages: list[Json]) -> Json:
        told = {name: body[name] for name in (*SAMPLING, "repeat_penalty") if name in body}
        if "max_output_tokens" in body:
            told["max_tokens"] = body["max_output_tokens"]
        told |= {"messages": messages, "stream": body.get("stream", False)}
        if told["stream"]:
            told["stream_options"] = {"include_usage": True}
        return told

    def _result(self, body: Json, messages: list[Json], answer: Answer, text: str) -> Json:
        result: Json = {
            "model_instance_id": answer.model,
            "output": [{"type": "message", "content": text}],
            "stats": {
                "input_tokens": answer.usage.get("prompt_tokens", 0),
                "total_output_tokens": answer.usage.get("completion_tokens", 0),
                "reasoning_output_tokens": 0,
                "tokens_per_second": answer.timings.get("predicted_per_second", 0.0),
                "time_to_first_token_seconds": answer.timings.get("prompt_ms", 0.0) / 1000,
            },
        }
        if body.get("store", True):
            result["response_id"] = f"resp_{short_id(48)}"
            self._stored[result["response_id"]] = [*messages, {"role": "assistant", "content": text}]
        return result

    async def _events(
        self, instance: Instance, body: Json, told: Json, load_seconds: float | None
    ) -> AsyncIterator[bytes]:
        answer, text = Answer(model=instance.id, chat=True), ""
        here = {"model_instance_id": instance.id}
        yield _event("chat.start", **here)
        if load_seconds is not None:
            yield _event("model_load.start", **here)
            yield _event("model_load.progress", **here, progress=1)
            yield _event("model_load.end", **here, load_time_seconds=load_seconds)
        yield _event("prompt_processing.start")
        try:
            async with self.inference.instances.busy(instance):
                async for chunk in stream(instance, told, chat=True):
                    for piece in answer.pieces(chunk):
                        if not text:
                            yield _event("prompt_processing.progress", progress=1)
                            yield _event("prompt_processing.end")
                            yield _event("message.start")
                        content = piece["choices"][0]["delta"]["content"]
                        text += content
                        yield _event("message.delta", content=content)
            yield _event("message.end")
        except Problem as problem:
            yield _event("error", error={"type": "unknown", "message": message_of(problem)})
        yield _event("chat.end", result=self._result(body, told["messages"], answer, text))


def _event(kind: str, **data: Any) -> bytes:
    return event({"type": kind, **data}, name=kind)


def _text(given: Any) -> str:
    """The text of an input: a string, or a list of texts."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        raise rest_problem(400, "invalid_request", '"input" is required', code="invalid_union", param="input")
    if any(part.get("type") != "text" for part in given):
        message = "Invalid discriminator value. Expected 'text' | 'image'"
        raise rest_problem(400, "invalid_request", message, code="invalid_union", param="input")
    return "\n".join(part["content"] for part in given)
