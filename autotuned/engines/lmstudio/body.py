"""From a core request to the JSON of LM Studio's routes in OpenAI's dialect.

``model`` calls it for every request. Only what their documentation lists is sent: what LM Studio does not
know it ignores, and nothing may be ignored.
Invariant: everything that a request asks for is in its body or refused here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    RawPrompt,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormatKind,
    Sampling,
    Tool,
    ToolChoiceMode,
)
from autotuned.core.errors import Unsupported
from autotuned.engines.chat_json import Json, encoded, messages_json, response_format_json, tools_json
from autotuned.engines.lmstudio.listing import Api

# The documentation's own "until it ends or the context is full".
NO_LIMIT = -1
SEEDS = 1 << 31
# "json_object" is refused by LM Studio; this is what it means.
ANY_OBJECT = '{"type":"object"}'
# What a timer of a JavaScript program can hold, in whole days.
MOST_TTL_SECONDS = 24 * 24 * 3600

_PREFIX = {Api.V1: "/v1", Api.V0: "/api/v0"}


@dataclass(frozen=True, slots=True)
class Call:
    """Where a request goes, and its JSON."""

    target: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressee:
    """What answers: an instance, through an API. ``thinks`` and ``sees`` are its model's abilities."""

    instance_id: str
    api: Api
    sees: bool
    thinks: bool


def generation_call(request: GenerationRequest, to: Addressee) -> Call:
    """The call that streams this generation. Raises ``FieldInvalid`` and ``Unsupported``."""
    if request.reply_so_far:
        raise Unsupported(
            "LM Studio cannot go on with a reply that was cut; send the request again, with a larger context."
        )
    if request.top_logprobs_count is not None:
        raise Unsupported("LM Studio tells no log probabilities; leave them out.")
    body: Json = {"model": to.instance_id, "stream": True, "stream_options": {"include_usage": True}}
    body["max_tokens"] = NO_LIMIT if request.max_reply_tokens is None else request.max_reply_tokens
    body |= _sampling(request.sampling)
    if request.stop_sequences:
        body["stop"] = request.stop_sequences
    if to.api is Api.V0 and (ttl := ttl_seconds(request.keep_alive_seconds)):
        body["ttl"] = ttl
    if isinstance(request.input, RawPrompt):
        return Call(f"{_PREFIX[to.api]}/completions", encoded(body | _raw(request, request.input)))
    _check_effort(request.reasoning_effort, thinks=to.thinks)
    body |= _chat(request.input, sees=to.sees) | response_format_json(_format(request.response_format))
    return Call(f"{_PREFIX[to.api]}/chat/completions", encoded(body))


def ttl_seconds(keep_alive_seconds: float | None) -> int:
    """A keep-alive as whole seconds for a load just in time; 0 where none can be set: the server's holds."""
    if keep_alive_seconds is None or keep_alive_seconds < 0:
        return 0
    return min(max(1, round(keep_alive_seconds)), MOST_TTL_SECONDS)


def _sampling(sampling: Sampling) -> Json:
    if sampling.min_p is not None:
        raise Unsupported("LM Studio has no min_p in its chat route; leave it out.", field="sampling.min_p")
    values: Json = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": None if sampling.seed is None else sampling.seed % SEEDS,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _format(wanted: ResponseFormat) -> ResponseFormat:
    if wanted.kind is ResponseFormatKind.JSON_OBJECT:
        return ResponseFormat(ResponseFormatKind.JSON_SCHEMA, ANY_OBJECT)
    return wanted


def _raw(request: GenerationRequest, prompt: RawPrompt) -> Json:
    if request.response_format.kind is not ResponseFormatKind.TEXT:
        raise Unsupported("A raw prompt cannot have a response format with this engine; send a chat instead.")
    if request.reasoning_effort is not None:
        raise Unsupported("A raw prompt has no reasoning effort; send a chat instead.")
    if prompt.suffix:
        raise Unsupported("Filling in the middle is not supported by LM Studio; use another engine.")
    return {"prompt": prompt.prompt}


def _check_effort(effort: ReasoningEffort | None, *, thinks: bool) -> None:
    """A model that does not think may be told anything: it is as if it had obeyed."""
    if effort is not None and thinks:
        raise Unsupported(
            "LM Studio's chat route has no reasoning effort; set it in the app and leave it out."
        )


def _chat(chat: ChatInput, *, sees: bool) -> Json:
    if chat.parallel_tool_calls is False:
        raise Unsupported("LM Studio cannot be kept from calling several tools at once; leave that out.")
    body: Json = {"messages": messages_json(chat, images=sees)}
    if chat.tools:
        named = chat.tool_choice.mode is ToolChoiceMode.NAMED
        body["tools"] = tools_json(_offered(chat.tools, chat.tool_choice.name if named else ""))
        # It takes no name: the tool is offered alone, and one has to be called.
        body["tool_choice"] = "required" if named else chat.tool_choice.mode.value
    return body


def _offered(tools: Iterable[Tool], name: str) -> Iterable[Tool]:
    return (tool for tool in tools if not name or tool.name == name)
