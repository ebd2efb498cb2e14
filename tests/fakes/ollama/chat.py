"""``/api/chat``: loading, unloading, and conversations through the child's own chat template."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from tests.fakes.ollama import answers
from tests.fakes.ollama.child_bodies import chat_body
from tests.fakes.ollama.exchange import Line, Lines, Whole
from tests.fakes.ollama.ollama import Ollama, check_logprobs, check_thinking
from tests.fakes.ollama.options import Options
from tests.fakes.ollama.problems import Problem
from tests.fakes.ollama.runner import Runner

_EMPTY = {"role": "assistant", "content": ""}


async def chat_lines(server: Ollama, request: dict[str, Any]) -> Lines:
    """The lines of one answer. Raises ``Problem``."""
    watch = answers.Stopwatch()
    check_logprobs(request)
    if not request.get("model"):
        raise Problem("model is required", 400)
    model = server.store.find(request["model"])
    messages = request.get("messages", [])
    if not messages and request.get("keep_alive") == 0:
        await server.scheduler.expire(str(model.blob))
        yield Whole(_ended(request, "unload"))
        return
    if "completion" not in model.capabilities:
        raise Problem(f'"{request["model"]}" does not support chat', 400)
    if request.get("tools"):
        model.require("tools")
    check_thinking(model, request)
    options = server.options(model, request)
    async with server.runner(model, request, options) as runner:
        watch.loaded()
        if not messages:
            yield Whole(_ended(request, "load"))
            return
        if messages[0].get("role") != "system" and model.system:
            messages = [{"role": "system", "content": model.system}, *messages]
        messages = await fitting(request, messages, options, runner)
        body = chat_body(request, messages, options, runner.context_length)
        if request.get("_debug_render_only"):
            rendered = {"_debug_info": {"rendered_template": await runner.apply_template(body)}}
            yield Whole({"model": request["model"], "created_at": answers.now()} | rendered)
            return
        async with (
            runner.turns,
            runner.events("/v1/chat/completions", body) as events,
            aclosing(_lines(request, events)) as lines,
        ):
            async for line, timings in lines:
                if timings is None:
                    yield line
                    continue
                counted = answers.counts(timings, with_cached=server.settings.reports_cached)
                yield line | watch.times() | counted


async def _lines(
    request: dict[str, Any], events: AsyncIterator[Line]
) -> AsyncGenerator[tuple[Line, Line | None], None]:
    """Lines; the last one comes with what the child counted. Raises ``Problem``."""
    calls: dict[int, Line] = {}
    async for event in events:
        if event.get("error"):
            raise Problem(f"llama-server chat error: {event['error']}")
        for choice in event.get("choices", ())[:1]:
            line = _line(request, choice, calls)
            if choice["finish_reason"] is not None:
                yield _finished(line, choice, calls), event["timings"]
            elif line["message"]["content"] or "thinking" in line["message"] or "logprobs" in line:
                yield line, None


def fold_chat(request: dict[str, Any], lines: list[Line]) -> Line:
    """All lines as the one object of an answer that is not streamed."""
    whole = dict(lines[-1])
    message = dict(whole["message"])
    message["content"] = "".join(line["message"]["content"] for line in lines)
    if thinking := "".join(line["message"].get("thinking", "") for line in lines):
        message["thinking"] = thinking
    if found := [each for line in lines for each in line.get("logprobs", ())]:
        whole["logprobs"] = found
    return whole | {"message": message}


async def fitting(
    request: dict[str, Any], messages: list[Line], options: Options, runner: Runner
) -> list[Line]:
    """The messages without the oldest ones that do not fit; system messages and the last one stay."""
    context = min(options.runner.num_ctx, runner.context_length)
    if request.get("truncate") is False or len(messages) <= 1:
        return messages
    kept = messages
    for kept in _shorter(messages):
        prompt = await runner.apply_template(chat_body(request, kept, options, runner.context_length))
        if len(await runner.tokenize(prompt)) <= context:
            break
    return kept


def _shorter(messages: list[Line]) -> Iterator[list[Line]]:
    for first in range(len(messages)):
        yield [each for each in messages[:first] if each.get("role") == "system"] + messages[first:]


def _line(request: dict[str, Any], choice: Line, calls: dict[int, Line]) -> Line:
    delta = choice["delta"]
    message: Line = {"role": "assistant", "content": delta.get("content") or ""}
    if delta.get("reasoning_content"):
        message["thinking"] = delta["reasoning_content"]
    for part in delta.get("tool_calls") or ():
        call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
        call["id"] += part.get("id") or ""
        call["name"] += part["function"].get("name") or ""
        call["arguments"] += part["function"].get("arguments") or ""
    line = {"model": request["model"], "created_at": answers.now(), "message": message, "done": False}
    found = (choice.get("logprobs") or {}).get("content")
    return line | answers.logprobs(found, with_top=request.get("top_logprobs", 0) > 0)


def _finished(line: Line, choice: Line, calls: dict[int, Line]) -> Line:
    if calls:
        line["message"]["tool_calls"] = [_called(index, calls[index]) for index in sorted(calls)]
    return line | {"done": True, "done_reason": answers.done_reason(choice["finish_reason"] == "length")}


def _called(index: int, call: Line) -> Line:
    """Arguments are an object here, where the child has text."""
    try:
        arguments = json.loads(call["arguments"]) if call["arguments"].strip() else {}
    except ValueError as error:
        name = call["name"]
        raise Problem(f'llama-server returned invalid tool call arguments for "{name}": {error}') from error
    function = {"index": index, "name": call["name"], "arguments": arguments}
    return {"id": call["id"], "function": function} if call["id"] else {"function": function}


def _ended(request: dict[str, Any], reason: str) -> Line:
    ended = {"model": request["model"], "created_at": answers.now(), "message": _EMPTY}
    return ended | {"done": True, "done_reason": reason}
