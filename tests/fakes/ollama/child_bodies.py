"""From a request of Ollama's to the JSON that its llama.cpp child reads."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.fakes.ollama.options import Options
from tests.fakes.ollama.problems import Problem

_OPEN_ENDED_CONTEXTS = 10

Json = dict[str, Any]


def chat_body(request: Json, messages: list[Json], options: Options, context_length: int) -> Json:
    """For ``/v1/chat/completions``, and for ``/apply-template``. Raises ``Problem``."""
    body: Json = {
        "messages": [_message(message) for message in messages],
        "n_predict": _bounded(options.num_predict, context_length),
        "stop": options.stop,
    } | _sampling(options)
    if request.get("tools"):
        body["tools"] = request["tools"]
    if request.get("logprobs"):
        body |= {"logprobs": True, "top_logprobs": max(request.get("top_logprobs", 0), 1)}
    think = request.get("think")
    if think is not None:
        body["chat_template_kwargs"] = {"enable_thinking": bool(think)}
        if isinstance(think, str):
            body["chat_template_kwargs"]["reasoning_effort"] = think
    schema = _schema(request)
    if schema is not None:
        body["response_format"] = (
            {"type": "json_schema", "json_schema": {"name": "schema", "schema": schema}}
            if schema
            else {"type": "json_object"}
        )
    return body


def completion_body(request: Json, prompt: Any, options: Options, context_length: int) -> Json:
    """For ``/completion``. Raises ``Problem``."""
    body: Json = {"prompt": prompt} | _sampling(options)
    # Zero is left out there, and so means no limit.
    if limit := _bounded(options.num_predict, context_length):
        body["n_predict"] = limit
    if options.stop:
        body["stop"] = options.stop
    if request.get("logprobs"):
        body["n_probs"] = max(request.get("top_logprobs", 0), 1)
    schema = _schema(request)
    if schema is not None:
        body["json_schema"] = schema or {"type": "object"}
    if request.get("images"):
        data = [base64.b64encode(image).decode() for image in request["images"]]
        body["prompt"] = {"prompt_string": prompt + "<__media__>" * len(data), "multimodal_data": data}
    return body


def _bounded(limit: int, context_length: int) -> int:
    most = _OPEN_ENDED_CONTEXTS * context_length
    return most if limit < 0 or limit > most else limit


def _sampling(options: Options) -> Json:
    return {
        "stream": True,
        "cache_prompt": True,
        "n_keep": options.num_keep,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "repeat_penalty": options.repeat_penalty,
        "repeat_last_n": options.repeat_last_n,
        "frequency_penalty": options.frequency_penalty,
        "presence_penalty": options.presence_penalty,
        "typical_p": options.typical_p,
        "seed": options.seed,
    }


def _schema(request: Json) -> Json | None:
    """None without a format, empty for any JSON object."""
    wanted = request.get("format")
    if wanted is None or wanted == "":
        return None
    if wanted == "json":
        return {}
    if not isinstance(wanted, dict):
        quoted = json.dumps(json.dumps(wanted))
        raise Problem(f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')
    return wanted


def _message(message: Json) -> Json:
    content: Any = message.get("content", "")
    if images := message.get("images"):
        parts = [{"type": "text", "text": content}] if content else []
        content = parts + [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
    converted: Json = {"role": message.get("role", ""), "content": content}
    if message.get("tool_call_id"):
        converted["tool_call_id"] = message["tool_call_id"]
    if message.get("tool_name"):
        converted["name"] = message["tool_name"]
    if message.get("tool_calls"):
        converted["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return converted


def _tool_call(call: Json) -> Json:
    function = call.get("function", {})
    arguments = json.dumps(function.get("arguments", {}), separators=(",", ":"), ensure_ascii=False)
    return {
        "id": call.get("id", ""),
        "index": function.get("index", 0),
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": arguments},
    }


def _data_url(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
