"""From a core request to the JSON that a llama.cpp server reads.

``model`` calls it for every request; ``chat_json`` knows the conversation, this the options of the server.
Invariant: everything that a request asks for is in its body or refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    RawPrompt,
    ReasoningEffort,
    ResponseFormatKind,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from autotuned.core.errors import Unsupported
from autotuned.engines.chat_json import Json, encoded, messages_json, tools_json
from autotuned.engines.llamacpp.response_format import enforced_format

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
    body: Json = {"stream": True, "return_progress": True, "cache_prompt": True}
    if isinstance(request.input, RawPrompt):
        return _raw_call(request, request.input, body)
    body["stream_options"] = {"include_usage": True}
    body |= _chat(request.input)
    body["max_tokens"] = _reply_limit(request)
    body |= _sampling(request)
    body |= enforced_format(request.response_format)
    if request.top_logprobs_count is not None:
        if request.input.tools:
            raise Unsupported(
                "Log probabilities are not supported together with tools; leave one of them out."
            )
        # The engine takes 0 for none at all; the events drop the one alternative again.
        body |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs_count)}
    if request.reasoning_effort is not None:
        body["chat_template_kwargs"] = _reasoning(request.reasoning_effort)
    return Call(CHAT_TARGET, encoded(body))


def prefill_call(request: GenerationRequest) -> Call:
    """The call that computes the state of this prompt and answers nothing. Raises like above."""
    return generation_call(replace(request, max_reply_tokens=0))


def save_call(slot_number: int, file_name: str) -> Call:
    """The call that writes a slot's state into a file of the folder that the worker was told."""
    return Call(f"{SLOTS_TARGET}/{slot_number}?action=save", encoded({"filename": file_name}))


def restore_call(slot_number: int, file_name: str) -> Call:
    """The call that reads such a file into a slot."""
    return Call(f"{SLOTS_TARGET}/{slot_number}?action=restore", encoded({"filename": file_name}))


def count_call(chat: ChatInput | str) -> Call:
    """The call that counts a conversation, or a text the way a raw prompt is read. Raises like above."""
    if isinstance(chat, str):
        return Call(TOKENIZE_TARGET, encoded({"content": chat, "add_special": True, "parse_special": True}))
    return Call(COUNT_CHAT_TARGET, encoded(_chat(chat)))


def _raw_call(request: GenerationRequest, prompt: RawPrompt, body: Json) -> Call:
    if request.response_format.kind is not ResponseFormatKind.TEXT:
        raise Unsupported("A raw prompt cannot have a response format with this engine; send a chat instead.")
    if request.reasoning_effort is not None:
        raise Unsupported("A raw prompt has no reasoning effort; send a chat instead.")
    body |= {"n_predict": _reply_limit(request), "response_fields": FINAL_FIELDS} | _sampling(request)
    if request.top_logprobs_count is not None:
        body["n_probs"] = max(1, request.top_logprobs_count)
    if not prompt.suffix:
        return Call(PROMPT_TARGET, encoded(body | {"prompt": prompt.prompt}))
    return Call(INFILL_TARGET, encoded(body | {"input_prefix": prompt.prompt, "input_suffix": prompt.suffix}))


def _reply_limit(request: GenerationRequest) -> int:
    """-1 is the engine's "until it ends or the context is full"."""
    if request.max_reply_tokens is None:
        return -1
    return min(request.max_reply_tokens, MAX_REPLY_TOKENS)


def _sampling(request: GenerationRequest) -> Json:
    sampling: Sampling = request.sampling
    values: Json = {
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


def _reasoning(effort: ReasoningEffort) -> Json:
    """What chat templates read; one that knows neither name does not reason."""
    if effort is ReasoningEffort.NONE:
        return {"enable_thinking": False}
    return {"enable_thinking": True, "reasoning_effort": effort.value}


def _chat(chat: ChatInput) -> Json:
    body: Json = {"messages": messages_json(chat, images=False)}
    if _is_begun(chat):
        # Older builds go on without these, too, but repeat what was begun.
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if chat.tools:
        body["tools"] = tools_json(_offered(chat.tools, chat.tool_choice))
        body["tool_choice"] = _tool_choice(chat.tool_choice)
        if chat.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = chat.parallel_tool_calls
    return body


def _is_begun(chat: ChatInput) -> bool:
    """Whether the last message is an answer that goes on."""
    last = chat.messages[-1] if chat.messages else None
    if last is None or last.role is not Role.ASSISTANT:
        return False
    return bool(last.parts) and all(isinstance(part, TextPart) for part in last.parts)


def _offered(tools: Iterable[Tool], choice: ToolChoice) -> Iterator[Tool]:
    """The engine cannot be told which tool to call: it is offered that one alone, and must call one."""
    named = choice.mode is ToolChoiceMode.NAMED
    return (tool for tool in tools if not named or tool.name == choice.name)


def _tool_choice(choice: ToolChoice) -> str:
    return "required" if choice.mode is ToolChoiceMode.NAMED else choice.mode.value
