"""From a core request to a call of the worker, and from the worker's errors to the core's.

``model`` makes the calls and one ``MlxRequests`` for each incarnation. Invariant: everything that a request
asks for is in its call or refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    RawPrompt,
    ReasoningEffort,
    ResponseFormatKind,
    Sampling,
    Tool,
    ToolChoiceMode,
)
from autotuned.core.errors import AutotuneError, ContextTooLong, FieldInvalid, StorageFull, Unsupported
from autotuned.engines import worker_requests
from autotuned.engines.chat_events import ProblemData
from autotuned.engines.chat_json import messages_json, tools_json
from autotuned.engines.mlx import protocol

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Call:
    """Where a request goes, and its JSON."""

    target: str
    body: bytes = b""
    method: str = "POST"


STATUS_CALL = Call(protocol.STATUS_TARGET, method="GET")


def generation_call(request: GenerationRequest, conversation: str, *, prefill_only: bool = False) -> Call:
    """The call that streams this generation. Raises ``FieldInvalid`` and ``Unsupported``."""
    prompt = request.input
    if isinstance(prompt, RawPrompt):
        data = _raw(request, prompt)
    else:
        data = _chat(prompt, request.reasoning_effort)
        if prompt.tools and request.top_logprobs_count is not None:
            raise Unsupported(
                "Log probabilities are not supported together with tools; leave one of them out."
            )
    kind = request.response_format.kind
    call = protocol.GenerateCall(
        prompt=data,
        conversation=conversation,
        prefill_only=prefill_only,
        sampling=_sampling(request.sampling),
        max_tokens=request.max_reply_tokens,
        stop=list(request.stop_sequences),
        form="" if kind is ResponseFormatKind.TEXT else kind.value,
        schema=request.response_format.schema_json,
        top_logprobs=request.top_logprobs_count,
    )
    return Call(protocol.GENERATE_TARGET, _bytes(call))


def count_call(chat: ChatInput | str) -> Call:
    """The call that counts a conversation, or a text the way a raw prompt is read. Raises like above."""
    data = protocol.PromptData(text=chat) if isinstance(chat, str) else _chat(chat, None)
    return Call(protocol.COUNT_TARGET, _bytes(data))


def file_call(target: str, conversation: str, file_name: str) -> Call:
    """The call that saves or restores a state."""
    return Call(target, _bytes(protocol.FileCall(conversation=conversation, file_name=file_name)))


class MlxRequests(worker_requests.WorkerRequests):
    """Sends requests to a worker, each on a connection of its own."""

    def refusal(self, problem: ProblemData, call: worker_requests.Call) -> AutotuneError:
        """What an error of the worker means to the client."""
        kind, _, field = problem.type.partition(":")
        if kind == protocol.CONTEXT_TOO_LONG:
            return ContextTooLong(prompt_tokens=problem.n_prompt_tokens, context_tokens=problem.n_ctx)
        if kind == protocol.FIELD_INVALID:
            return FieldInvalid(field, problem.message)
        if kind == protocol.UNSUPPORTED:
            return Unsupported(f'"{self.model_id}" cannot do this: {problem.message}')
        if kind == protocol.UNWRITTEN:
            return StorageFull(problem.message)
        return super().refusal(problem, call)


def _raw(request: GenerationRequest, prompt: RawPrompt) -> protocol.PromptData:
    if prompt.suffix:
        raise Unsupported("Filling in the middle is not supported with MLX; leave the suffix out.")
    if request.reasoning_effort is not None:
        raise Unsupported("A raw prompt has no reasoning effort; send a chat instead.")
    return protocol.PromptData(text=prompt.prompt)


def _chat(chat: ChatInput, effort: ReasoningEffort | None) -> protocol.PromptData:
    choice = chat.tool_choice
    tools: tuple[Tool, ...] = chat.tools
    if choice.mode is ToolChoiceMode.NONE:  # a model that is offered none calls none
        tools = ()
    elif choice.mode is ToolChoiceMode.NAMED:
        tools = tuple(tool for tool in tools if tool.name == choice.name)
    return protocol.PromptData(
        messages=messages_json(chat, images=False),
        tools=tools_json(tools),
        must_call=bool(tools) and choice.mode in {ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED},
        thinking=None if effort is None else effort is not ReasoningEffort.NONE,
        effort="" if effort in {None, ReasoningEffort.NONE} else effort.value,
    )


def _sampling(sampling: Sampling) -> protocol.SamplingData:
    values: dict[str, Any] = {
        name: getattr(sampling, name) for name in protocol.SamplingData.__struct_fields__
    }
    values["logit_bias"] = list(sampling.logit_bias)
    return protocol.SamplingData(**values)


def _bytes(value: msgspec.Struct) -> bytes:
    """JSON. Raises ``FieldInvalid`` for text that is no Unicode."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        raise FieldInvalid("request", "a text in it is not valid Unicode; send valid UTF-8.") from None
