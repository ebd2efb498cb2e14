"""From a core request to the JSON that a server of OpenAI's dialect reads.

``model`` has one written for the server that takes the request; ``chat_json`` knows the conversation,
this the options. Invariant: everything that a request asks for is in its body, done by ``model``, or
refused here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    RawPrompt,
    ReasoningEffort,
    ResponseFormatKind,
    Sampling,
    ToolChoice,
    ToolChoiceMode,
)
from autotuned.core.errors import Unsupported
from autotuned.engines.chat_json import Json, encoded, messages_json, response_format_json, tools_json
from autotuned.engines.openai.kinds import Ability, ServerKind

CHAT_TARGET = "/chat/completions"
PROMPT_TARGET = "/completions"
COUNT_CHAT_TARGET = "/chat/completions/input_tokens"
TOKENIZE_TARGET = "/tokenize"

# Both hold in what every server reads: llama.cpp takes the largest 32-bit number for "draw one".
LLAMACPP_SEEDS = 0xFFFFFFFF
SEEDS = 1 << 63
# For a server that would else end a reply at a number of its own.
NO_LIMIT_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Call:
    """Where a request goes, and its JSON; ``at_root`` where that is not below the versioned path."""

    target: str
    body: bytes
    at_root: bool = False


def generation_call(request: GenerationRequest, model_id: str, ability: Ability) -> Call:
    """The call that streams this generation. Raises ``FieldInvalid`` and ``Unsupported``."""
    if request.reply_so_far:
        raise Unsupported("A reply of this server cannot go on after it was cut; send the request again.")
    body: Json = {"model": model_id, "stream": True, "stream_options": {"include_usage": True}}
    if ability.traits.counts_first:
        body |= {"return_progress": True, "cache_prompt": True}
    if request.top_logprobs_count is not None and not ability.traits.logprobs:
        raise Unsupported("This server tells no log probabilities; leave them out.")
    body |= _sampling(request.sampling, ability) | _limits(request, ability) | _form(request, ability)
    if isinstance(request.input, RawPrompt):
        return _raw_call(request, request.input, body, ability)
    body |= _chat(request.input, ability)
    if request.top_logprobs_count is not None:
        if request.input.tools and ability.kind is ServerKind.LLAMACPP:
            raise Unsupported(
                "Log probabilities are not supported together with tools; leave one of them out."
            )
        # Some take 0 for none at all; the events drop the one alternative again.
        body |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs_count)}
    if request.reasoning_effort is not None:
        body |= _reasoning(request.reasoning_effort, ability)
    return Call(CHAT_TARGET, encoded(body))


def count_call(chat: ChatInput | str, model_id: str, ability: Ability) -> Call:
    """The call that counts a conversation or a text. Raises like above."""
    if not ability.traits.counts_first:
        raise Unsupported("This server counts no tokens; estimate from the length.")
    if isinstance(chat, str):
        counted: Json = {"content": chat, "add_special": True, "parse_special": True}
        return Call(TOKENIZE_TARGET, encoded(counted), at_root=True)
    return Call(COUNT_CHAT_TARGET, encoded({"model": model_id} | _chat(chat, ability)))


def _raw_call(request: GenerationRequest, prompt: RawPrompt, body: Json, ability: Ability) -> Call:
    if request.reasoning_effort is not None:
        raise Unsupported("A raw prompt has no reasoning effort; send a chat instead.")
    if request.response_format.kind is not ResponseFormatKind.TEXT:
        raise Unsupported("A raw prompt cannot have a response format with this engine; send a chat instead.")
    if prompt.suffix:
        if not ability.traits.fills_in:
            raise Unsupported("Filling in the middle is not supported by this server; leave the suffix out.")
        body["suffix"] = prompt.suffix
    body["prompt"] = prompt.prompt
    if request.top_logprobs_count is not None:
        body["logprobs"] = max(1, request.top_logprobs_count)
    return Call(PROMPT_TARGET, encoded(body))


def _limits(request: GenerationRequest, ability: Ability) -> Json:
    """Where a reply ends."""
    body: Json = {}
    if request.max_reply_tokens is not None:
        body["max_tokens"] = request.max_reply_tokens
    elif not ability.traits.ends_by_itself:
        body["max_tokens"] = NO_LIMIT_TOKENS
    if request.stop_sequences and ability.traits.stops:
        body["stop"] = request.stop_sequences
    return body


def _form(request: GenerationRequest, ability: Ability) -> Json:
    """The form that an answer must have."""
    if request.response_format.kind is not ResponseFormatKind.TEXT and not ability.traits.json_schema:
        raise Unsupported("This server keeps to no response format; ask for plain text.")
    return response_format_json(request.response_format)


def _sampling(sampling: Sampling, ability: Ability) -> Json:
    asked = {field.name: getattr(sampling, field.name) for field in fields(sampling)}
    body: Json = {name: value for name, value in asked.items() if value is not None and value != ()}
    if strange := sorted(body.keys() - ability.traits.sampling):
        raise Unsupported(f"This server does not honour {', '.join(strange)}; leave it out.")
    is_llamacpp = ability.kind is ServerKind.LLAMACPP
    if "repeat_penalty" in body and not is_llamacpp:
        body["repetition_penalty"] = body.pop("repeat_penalty")
    if "seed" in body:
        body["seed"] %= LLAMACPP_SEEDS if is_llamacpp else SEEDS
    if "logit_bias" in body and not is_llamacpp:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    return body


def _reasoning(effort: ReasoningEffort, ability: Ability) -> Json:
    """OpenAI's option, and what chat templates read where it reaches them."""
    if not ability.traits.template_options:
        return {"reasoning_effort": effort.value}
    if effort is ReasoningEffort.NONE:
        return {"chat_template_kwargs": {"enable_thinking": False}}
    return {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": effort.value}}


def _chat(chat: ChatInput, ability: Ability) -> Json:
    body: Json = {"messages": messages_json(chat, images=ability.images)}
    if not chat.tools:
        return body
    choice = chat.tool_choice
    if choice.mode is not ToolChoiceMode.AUTO and not ability.traits.tool_choice:
        raise Unsupported("This server cannot be told whether to call a tool; leave the tool choice out.")
    if chat.parallel_tool_calls is False and not ability.traits.tool_choice:
        raise Unsupported("This server cannot be told to call one tool at most; leave that out.")
    tools = chat.tools
    if choice.mode is ToolChoiceMode.NAMED and ability.kind is ServerKind.LLAMACPP:
        # It cannot be told which tool to call: it is offered that one alone, and must call one.
        tools = tuple(tool for tool in tools if tool.name == choice.name)
        choice = ToolChoice(ToolChoiceMode.REQUIRED)
    body["tools"] = tools_json(tools)
    if choice.mode is ToolChoiceMode.NAMED:
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif ability.traits.tool_choice:
        body["tool_choice"] = choice.mode.value
    if chat.parallel_tool_calls is not None and ability.traits.tool_choice:
        body["parallel_tool_calls"] = chat.parallel_tool_calls
    return body
