"""``/api/generate``: loading, unloading, prompts through the chat template, and raw prompts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from tests.fakes.ollama import answers
from tests.fakes.ollama.chat import fitting
from tests.fakes.ollama.child_bodies import chat_body, completion_body
from tests.fakes.ollama.exchange import Line, Lines, Whole
from tests.fakes.ollama.models import Model
from tests.fakes.ollama.ollama import Ollama, check_logprobs, check_thinking
from tests.fakes.ollama.options import Options
from tests.fakes.ollama.problems import NotFound, Problem
from tests.fakes.ollama.runner import Runner

_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust "
    "the context length in settings, or use a model with a longer context length"
)
_MOST_REPEATS = 30


async def generate_lines(server: Ollama, request: dict[str, Any]) -> Lines:
    """The lines of one answer. Raises ``Problem``."""
    watch = answers.Stopwatch()
    check_logprobs(request)
    if not request.get("model"):
        raise NotFound("")
    model = server.store.find(request["model"])
    prompt = request.get("prompt", "")
    if not prompt and request.get("keep_alive") == 0:
        await server.scheduler.expire(str(model.blob))
        yield Whole(_ended(request, "unload"))
        return
    _check(model, request)
    options = server.options(model, request)
    async with server.runner(model, request, options) as runner:
        watch.loaded()
        if not prompt:
            yield Whole(_ended(request, "load"))
            return
        if not request.get("raw"):
            prompt = await _rendered(model, request, options, runner)
        async with runner.turns:
            fitted = await _fitted(request, prompt, options, runner)
            body = completion_body(request, fitted, options, runner.context_length)
            text, final = "", None
            async with runner.events("/completion", body) as events, aclosing(_unrepeated(events)) as kept:
                async for event in kept:
                    text += event["content"]
                    if event["stop"]:
                        final = event
                    elif event["content"]:
                        yield _line(request, event)
            if final is None:
                return
            context = {} if request.get("raw") else {"context": await runner.tokenize(prompt + text)}
        done = {"done": True, "done_reason": answers.done_reason(final["stop_type"] == "limit")}
        counted = answers.counts(final["timings"], with_cached=server.settings.reports_cached)
        yield _line(request, final) | done | context | watch.times() | counted


async def _unrepeated(events: AsyncIterator[Line]) -> AsyncGenerator[Line, None]:
    """Ends when one text comes again and again: such an answer has no last line, there as here."""
    last, repeats = None, 0
    async for event in events:
        text = event["content"].strip()
        repeats = repeats + 1 if text == last else 0
        last = text
        if repeats > _MOST_REPEATS:
            return
        yield event


def _check(model: Model, request: dict[str, Any]) -> None:
    if request.get("raw") and (request.get("template") or request.get("system") or request.get("context")):
        raise Problem("raw mode does not support template, system, or context", 400)
    if "completion" not in model.capabilities:
        raise Problem(f'"{request["model"]}" does not support generate', 400)
    if request.get("suffix"):
        model.require("insert")
    if request.get("template"):
        raise Problem("the double runs no Go templates")
    check_thinking(model, request)


def fold_generate(lines: list[Line]) -> Line:
    """All lines as the one object of an answer that is not streamed."""
    whole = lines[-1] | {"response": "".join(line["response"] for line in lines)}
    found = [each for line in lines for each in line.get("logprobs", ())]
    return whole | {"logprobs": found} if found else whole


async def _rendered(model: Model, request: dict[str, Any], options: Options, runner: Runner) -> str:
    system = request.get("system") or model.system
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": request["prompt"]})
    messages = await fitting(request, messages, options, runner)
    prompt = await runner.apply_template(chat_body(request, messages, options, runner.context_length))
    if not request.get("context"):
        return prompt
    before = await runner.call("/detokenize", {"tokens": request["context"]})
    return before["content"] + prompt


async def _fitted(request: dict[str, Any], prompt: str, options: Options, runner: Runner) -> Any:
    """The prompt, or its tokens without some from the middle."""
    context = runner.context_length
    if request.get("truncate") is False or request.get("images") or len(prompt) < context:
        return prompt
    tokens = await runner.tokenize(prompt, add_special=True)
    if len(tokens) <= context - 1:
        return prompt
    if not runner.launch["context_shift"]:
        raise Problem(_TOO_LONG, 400)
    keep = min(options.num_keep if options.num_keep >= 0 else len(tokens), context - 1)
    limit = context - max((context - keep) // 2, 1)
    return tokens[:keep] + tokens[keep + len(tokens) - limit :]


def _line(request: dict[str, Any], event: Line) -> Line:
    line = {
        "model": request["model"],
        "created_at": answers.now(),
        "response": event["content"],
        "done": False,
    }
    found = event.get("completion_probabilities")
    return line | answers.logprobs(found, with_top=request.get("top_logprobs", 0) > 0)


def _ended(request: dict[str, Any], reason: str) -> Line:
    ended = {"model": request["model"], "created_at": answers.now(), "response": ""}
    return ended | {"done": True, "done_reason": reason}
