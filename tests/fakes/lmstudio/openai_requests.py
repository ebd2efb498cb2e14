"""What ``/v1`` and ``/api/v0`` take: which fields they honour, and how they refuse the rest.

Fields that LM Studio does not know are ignored there, and so they are here: only what is listed
reaches the engine.
"""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.lmstudio.problems import text_problem

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "repeat_penalty",
    "seed",
    "stop",
)
TOOL_CHOICES = ("none", "auto", "required")


def engine_body(body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """The body for llama.cpp.

    Raises:
        Problem: LM Studio refuses such a request.
    """
    told = {name: body[name] for name in SAMPLING if body.get(name) is not None}
    # -1 stands for "without a limit"; there is no max_completion_tokens.
    if (body.get("max_tokens") or -1) > 0:
        told["max_tokens"] = body["max_tokens"]
    told["stream"] = bool(body.get("stream"))
    if told["stream"]:
        told["stream_options"] = {"include_usage": True}
    if chat:
        _add_chat(told, body)
    elif isinstance(body.get("prompt"), str):
        told["prompt"] = body["prompt"]
    else:
        raise text_problem("'prompt' field is required and must be a string")
    return told


def _add_chat(told: dict[str, Any], body: dict[str, Any]) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise text_problem("'messages' field is required")
    for message in messages:
        _check_parts(message.get("content"))
    told["messages"] = messages
    if body.get("tools"):
        _check_tools(body["tools"])
        told["tools"] = body["tools"]
        told["tool_choice"] = _tool_choice(body)
    form = body.get("response_format")
    if form is not None:
        if form.get("type") not in ("json_schema", "text"):
            raise text_problem("'response_format.type' must be 'json_schema' or 'text'")
        if form["type"] == "json_schema":
            told["response_format"] = form


def _check_parts(content: Any) -> None:
    if not isinstance(content, list):
        return
    for part in content:
        if part.get("type") == "image_url":
            raise text_problem("Model does not support images. Please use a model that does.")
        if part.get("type") != "text":
            raise text_problem(
                "Invalid 'content': 'content' objects must have a 'type' field of 'text' or 'image_url'"
            )


def _tool_choice(body: dict[str, Any]) -> str:
    choice = body.get("tool_choice", "auto")
    if choice not in TOOL_CHOICES:
        kind = "object" if isinstance(choice, dict) else str(choice)
        values = ", ".join(TOOL_CHOICES)
        raise text_problem(f"Invalid tool_choice type: '{kind}'. Supported string values: {values}")
    return str(choice)


def _check_tools(tools: list[dict[str, Any]]) -> None:
    """The parameters of a tool have to be an object with properties, be they none."""
    findings: list[dict[str, Any]] = []
    for index, tool in enumerate(tools):
        parameters = tool.get("function", {}).get("parameters")
        if parameters is None:
            continue
        path = [index, "function", "parameters"]
        if parameters.get("type") != "object":
            findings.append(
                {
                    "code": "invalid_union_discriminator",
                    "options": ["object"],
                    "path": [*path, "type"],
                    "message": "Invalid discriminator value. Expected 'object'",
                }
            )
        elif not isinstance(parameters.get("properties"), dict):
            findings.append(
                {
                    "code": "invalid_type",
                    "expected": "object",
                    "received": "undefined",
                    "path": [*path, "properties"],
                    "message": "Required",
                }
            )
    if findings:
        raise text_problem(json.dumps(findings, indent=2))
