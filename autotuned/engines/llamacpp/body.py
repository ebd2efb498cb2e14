"""From a core request to the JSON that a llama.cpp server reads.

``model`` calls it for every request. Text that is JSON already (schemas, arguments) goes in byte for
byte, because its order decides whether the engine finds its prefix again; that it is one JSON object
was checked where it came in.
Invariant: everything that a request asks for is in its body or refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    ImagePart,
    Message,
    RawPrompt,
    ReasoningEffort,
    ReasoningPart,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolChoiceMode,
    ToolResultPart,
)
from autotuned.core.errors import FieldInvalid, Unsupported

CHAT_TARGET = "/v1/chat/completions"
COUNT_CHAT_TARGET = "/v1/chat/completions/input_tokens"
PROMPT_TARGET = "/completion"
INFILL_TARGET = "/infill"
TOKENIZE_TARGET = "/tokenize"
SLOTS_TARGET = "/slots"

MAX_REPLY_TOKENS = (1 << 31) - 1
# The engine takes this seed for "draw one"; every other 32-bit number is a seed.
RANDOM_SEED = 0xFFFFFFFF
# What of the closing message of a raw prompt is wanted: without it, the whole prompt comes back.
FINAL_FIELDS = ("content", "stop", "stop_type", "tokens_evaluated", "tokens_predicted", "timings")

_Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Call:
    """Where a request goes, and its JSON."""

    target: str
    body: bytes
    method: str = "POST"

    def on_slot(self, number: int) -> Call:
        """This call, to be served on a slot of its own."""
        return Call(self.target, b'{"id_slot":%d,%s' % (number, self.body[1:]), self.method)


SLOTS_CALL = Call(SLOTS_TARGET, b"", "GET")


def generation_call(request: GenerationRequest) -> Call:
    """The call that streams this generation. Raises ``FieldInvalid`` and ``Unsupported``."""
    # With progress the engine looks between batches whether the client is still there.
    body: _Json = {"stream": True, "return_progress": True, "cache_prompt": True}
    if isinstance(request.input, RawPrompt):
        return _raw_call(request, request.input, body)
    body["stream_options"] = {"include_usage": True}
    body |= _chat(request.input)
    body["max_tokens"] = _reply_limit(request)
    body |= _sampling(request)
    body |= _response_format(request.response_format)
    if request.top_logprobs_count is not None:
        if request.input.tools:
            raise Unsupported(
                "Log probabilities are not supported together with tools; leave one of them out."
            )
        # The engine takes 0 for none at all; the events drop the one alternative again.
        body |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs_count)}
    if request.reasoning_effort is not None:
        body["chat_template_kwargs"] = _reasoning(request.reasoning_effort)
    return Call(CHAT_TARGET, _json(body))


def prefill_call(request: GenerationRequest) -> Call:
    """The call that computes the state of this prompt and answers nothing. Raises like above."""
    return generation_call(replace(request, max_reply_tokens=0))


def save_call(slot_number: int, file_name: str) -> Call:
    """The call that writes a slot's state into a file of the folder that the worker was told."""
    return Call(f"{SLOTS_TARGET}/{slot_number}?action=save", _json({"filename": file_name}))


def restore_call(slot_number: int, file_name: str) -> Call:
    """The call that reads such a file into a slot."""
    return Call(f"{SLOTS_TARGET}/{slot_number}?action=restore", _json({"filename": file_name}))


def count_call(chat: ChatInput | str) -> Call:
    """The call that counts a conversation, or a text the way a raw prompt is read. Raises like above."""
    if isinstance(chat, str):
        return Call(TOKENIZE_TARGET, _json({"content": chat, "add_special": True, "parse_special": True}))
    return Call(COUNT_CHAT_TARGET, _json(_chat(chat)))


def _raw_call(request: GenerationRequest, prompt: RawPrompt, body: _Json) -> Call:
    if request.response_format.kind is not ResponseFormatKind.TEXT:
        raise Unsupported("A raw prompt cannot have a response format with this engine; send a chat instead.")
    if request.reasoning_effort is not None:
        raise Unsupported("A raw prompt has no reasoning effort; send a chat instead.")
    body |= {"n_predict": _reply_limit(request), "response_fields": FINAL_FIELDS} | _sampling(request)
    if request.top_logprobs_count is not None:
        body["n_probs"] = max(1, request.top_logprobs_count)
    if not prompt.suffix:
        return Call(PROMPT_TARGET, _json(body | {"prompt": prompt.prompt}))
    return Call(INFILL_TARGET, _json(body | {"input_prefix": prompt.prompt, "input_suffix": prompt.suffix}))


def _reply_limit(request: GenerationRequest) -> int:
    """-1 is the engine's "until it ends or the context is full"."""
    if request.max_reply_tokens is None:
        return -1
    return min(request.max_reply_tokens, MAX_REPLY_TOKENS)


def _sampling(request: GenerationRequest) -> _Json:
    sampling: Sampling = request.sampling
    values: _Json = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": None if sampling.seed is None else sampling.seed % RANDOM_SEED,
        "logit_bias": sampling.logit_bias or None,
        "stop": request.stop_sequences or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _response_format(wanted: ResponseFormat) -> _Json:
    if wanted.kind is ResponseFormatKind.TEXT:
        return {}
    if wanted.kind is ResponseFormatKind.JSON_OBJECT:
        return {"response_format": {"type": "json_object"}}
    schema = msgspec.Raw(wanted.schema_json.encode())
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def _reasoning(effort: ReasoningEffort) -> _Json:
    """What chat templates read; one that knows neither name does not reason."""
    if effort is ReasoningEffort.NONE:
        return {"enable_thinking": False}
    return {"enable_thinking": True, "reasoning_effort": effort.value}


def _chat(chat: ChatInput) -> _Json:
    body: _Json = {
        "messages": [
            entry for index, message in enumerate(chat.messages) for entry in _messages(index, message)
        ]
    }
    if chat.tools:
        body["tools"] = [_tool(tool) for tool in _offered(chat.tools, chat.tool_choice)]
        body["tool_choice"] = _tool_choice(chat.tool_choice)
        if chat.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = chat.parallel_tool_calls
    return body


def _messages(index: int, message: Message) -> Iterator[_Json]:
    """One message, or one for each result of a tool message."""
    path = f"chat.messages[{index}]"
    if any(isinstance(part, ImagePart) for part in message.parts):
        raise Unsupported("This engine does not read images; send text only.", field=path)
    if message.role is Role.TOOL:
        yield from (_tool_result(part) for part in message.parts if isinstance(part, ToolResultPart))
        return
    entry: _Json = {"role": message.role.value, "content": _content(message)}
    if reasoning := "".join(part.text for part in message.parts if isinstance(part, ReasoningPart)):
        entry["reasoning_content"] = reasoning
    if calls := [_tool_call(part) for part in message.parts if isinstance(part, ToolCallPart)]:
        entry["tool_calls"] = calls
    yield entry


def _content(message: Message) -> str | list[_Json]:
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    if len(texts) > 1:
        return [{"type": "text", "text": text} for text in texts]
    return texts[0] if texts else ""


def _tool_call(part: ToolCallPart) -> _Json:
    arguments = part.arguments_json or "{}"
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def _tool_result(part: ToolResultPart) -> _Json:
    entry: _Json = {"role": "tool", "tool_call_id": part.tool_call_id, "content": part.text}
    return entry | {"name": part.name} if part.name else entry


def _tool(tool: Tool) -> _Json:
    parameters = tool.parameters_json or '{"type":"object","properties":{}}'
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": msgspec.Raw(parameters.encode()),
    }
    return {"type": "function", "function": function}


def _offered(tools: Iterable[Tool], choice: ToolChoice) -> Iterator[Tool]:
    """The engine cannot be told which tool to call: it is offered that one alone, and must call one."""
    named = choice.mode is ToolChoiceMode.NAMED
    return (tool for tool in tools if not named or tool.name == choice.name)


def _tool_choice(choice: ToolChoice) -> str:
    return "required" if choice.mode is ToolChoiceMode.NAMED else choice.mode.value


def _json(body: _Json) -> bytes:
    try:
        return _encode(body)
    except UnicodeEncodeError:
        raise FieldInvalid("request", "a text in it is not valid Unicode; send valid UTF-8.") from None
