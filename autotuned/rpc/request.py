"""Wire to core: requests for generations, prewarms and plans, checked and turned into core's values.

Invariant: what comes out is valid, and every field that was set is either in it or was refused:
nothing that a client asked for is dropped in silence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from autotune.v1 import inference_service_pb2, model_service_pb2

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    RawPrompt,
    ResponseFormat,
    ResponseFormatKind,
    Sampling,
)
from autotuned.core.errors import FieldInvalid, Unsupported
from autotuned.rpc.chat import chat_beginning, chat_input, check_json_object
from autotuned.rpc.fields import (
    keep_alive_seconds,
    known,
    positive,
    profile_name,
    reasoning_effort,
    swap_policy,
)

_Format = inference_service_pb2.ResponseFormat

_FORMATS: Mapping[int, ResponseFormatKind] = {
    _Format.KIND_UNSPECIFIED: ResponseFormatKind.TEXT,
    _Format.KIND_TEXT: ResponseFormatKind.TEXT,
    _Format.KIND_JSON_OBJECT: ResponseFormatKind.JSON_OBJECT,
    _Format.KIND_JSON_SCHEMA: ResponseFormatKind.JSON_SCHEMA,
}
# Whether nothing of a request is kept on disk.
_DISCARDS: Mapping[int, bool] = {
    inference_service_pb2.STORE_POLICY_UNSPECIFIED: False,
    inference_service_pb2.STORE_POLICY_DISCARD: True,
}
# The smallest and the largest value of each sampling field, both allowed.
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 5.0),
    "top_p": (1e-6, 1.0),
    "top_k": (0, 1_000_000),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (1e-6, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
MOST_LOGPROBS = 20
MOST_STOP_SEQUENCES = 64
LARGEST_BIAS = 100.0
_LARGEST_WRITTEN_OUT = 1e12
_NO_MESSAGES = ChatInput(messages=())


def generation_request(request: inference_service_pb2.GenerateRequest, client: str = "") -> GenerationRequest:
    """``client`` is who asks. Raises FieldInvalid for a malformed field, Unsupported for what cannot be."""
    _refuse_unsupported(request)
    return GenerationRequest(
        model=request.model,
        input=_input(request),
        sampling=_sampling(request.sampling),
        max_reply_tokens=positive(request, "max_reply_tokens"),
        stop_sequences=_stop_sequences(request),
        response_format=_response_format(request.response_format),
        reasoning_effort=reasoning_effort(request.reasoning_effort),
        top_logprobs_count=_top_logprobs(request),
        profile=profile_name(request.profile),
        context_tokens=positive(request, "context_tokens"),
        swap_policy=swap_policy(request.swap_policy),
        keep_alive_seconds=keep_alive_seconds(request),
        discard=_discards(request.store_policy),
        client=client,
        engine=request.engine,
    )


def prewarm_request(request: inference_service_pb2.PrewarmRequest, client: str = "") -> GenerationRequest:
    """A generation of nothing; without messages and tools its input is empty. Raises like the above."""
    return GenerationRequest(
        model=request.model,
        input=chat_beginning(request.chat),
        reasoning_effort=reasoning_effort(request.reasoning_effort),
        profile=profile_name(request.profile),
        context_tokens=positive(request, "context_tokens"),
        swap_policy=swap_policy(request.swap_policy),
        discard=_discards(request.store_policy),
        client=client,
        engine=request.engine,
    )


def plan_request(
    request: model_service_pb2.PlanModelRequest, client: str = ""
) -> tuple[GenerationRequest, int | None]:
    """The request to plan for, and the exact tokens of its prompt where the client knows them.

    Its input is empty where nothing is known of the prompt. Raises like the above.
    """
    generation = GenerationRequest(
        model=request.model,
        input=_planned_input(request),
        max_reply_tokens=positive(request, "max_reply_tokens"),
        profile=profile_name(request.profile),
        context_tokens=positive(request, "context_tokens"),
        swap_policy=swap_policy(request.swap_policy),
        client=client,
        engine=request.engine,
    )
    return generation, positive(request, "prompt_tokens")


def _planned_input(request: model_service_pb2.PlanModelRequest) -> ChatInput | RawPrompt:
    match request.WhichOneof("prompt"):
        case "chat":
            return chat_input(request.chat)
        case "text" if not request.text:
            raise FieldInvalid("text", "it is empty; send some text, or leave it out.")
        case "text":
            return RawPrompt(request.text)
        case _:
            return _NO_MESSAGES


def _discards(store_policy: int) -> bool:
    if store_policy not in _DISCARDS:
        raise _unsupported("store_policy")
    return _DISCARDS[store_policy]


def _refuse_unsupported(request: inference_service_pb2.GenerateRequest) -> None:
    if request.WhichOneof("input") == "continuation":
        raise Unsupported("Stored conversations are not supported yet; send the whole conversation as chat.")
    if request.priority not in {
        inference_service_pb2.PRIORITY_UNSPECIFIED,
        inference_service_pb2.PRIORITY_NORMAL,
    }:
        raise _unsupported("priority")
    if request.recall_policy not in {
        inference_service_pb2.RECALL_POLICY_UNSPECIFIED,
        inference_service_pb2.RECALL_POLICY_OMIT,
    }:
        raise _unsupported("recall_policy")


def _unsupported(field: str) -> Unsupported:
    return Unsupported(f"{field} is not supported yet; leave the field out.", field=field)


def _input(request: inference_service_pb2.GenerateRequest) -> ChatInput | RawPrompt:
    match request.WhichOneof("input"):
        case "chat":
            return chat_input(request.chat)
        case "raw_prompt":
            if not request.raw_prompt.prompt and not request.raw_prompt.suffix:
                raise FieldInvalid("raw_prompt.prompt", "the prompt is empty; send some text.")
            return RawPrompt(request.raw_prompt.prompt, request.raw_prompt.suffix)
        case _:
            raise FieldInvalid("input", "it is missing; set chat or raw_prompt.")


def _sampling(sampling: inference_service_pb2.Sampling) -> Sampling:
    return Sampling(
        temperature=_ranged(sampling, "temperature"),
        top_p=_ranged(sampling, "top_p"),
        top_k=_ranged_int(sampling, "top_k"),
        min_p=_ranged(sampling, "min_p"),
        seed=sampling.seed if sampling.HasField("seed") else None,
        repeat_penalty=_ranged(sampling, "repeat_penalty"),
        presence_penalty=_ranged(sampling, "presence_penalty"),
        frequency_penalty=_ranged(sampling, "frequency_penalty"),
        logit_bias=_logit_bias(sampling),
    )


def _ranged(sampling: inference_service_pb2.Sampling, field: str) -> float | None:
    if not sampling.HasField(field):
        return None
    value = float(getattr(sampling, field))
    least, most = _RANGES[field]
    if math.isnan(value) or not least <= value <= most:
        above_zero = least == 1e-6  # noqa: PLR2004 - the marker of an open lower bound
        lower = "above 0" if above_zero else _number(least)
        raise FieldInvalid(
            f"sampling.{field}", f"{_number(value)} is out of range; use {lower} to {_number(most)}."
        )
    return value


def _ranged_int(sampling: inference_service_pb2.Sampling, field: str) -> int | None:
    value = _ranged(sampling, field)
    return None if value is None else int(getattr(sampling, field))


def _number(value: float) -> str:
    """All digits of a whole number: a limit that is rounded could not be kept."""
    whole = math.isfinite(value) and value == int(value) and abs(value) < _LARGEST_WRITTEN_OUT
    return f"{int(value):,}" if whole else f"{value:g}"


def _logit_bias(sampling: inference_service_pb2.Sampling) -> tuple[tuple[int, float], ...]:
    for token, bias in sampling.logit_bias.items():
        if token < 0 or math.isnan(bias) or abs(bias) > LARGEST_BIAS:
            raise FieldInvalid(
                "sampling.logit_bias",
                f"{token}: {bias:g} is out of range; use ids from 0 and -100 to 100.",
            )
    return tuple(sorted(sampling.logit_bias.items()))


def _stop_sequences(request: inference_service_pb2.GenerateRequest) -> tuple[str, ...]:
    if len(request.stop_sequences) > MOST_STOP_SEQUENCES:
        raise FieldInvalid("stop_sequences", f"there are more than {MOST_STOP_SEQUENCES}; send fewer.")
    if not all(request.stop_sequences):
        raise FieldInvalid("stop_sequences", "one is empty; send texts of at least one character.")
    return tuple(request.stop_sequences)


def _response_format(wanted: inference_service_pb2.ResponseFormat) -> ResponseFormat:
    kind = known("response_format.kind", _FORMATS, wanted.kind)
    if kind is ResponseFormatKind.JSON_SCHEMA:
        check_json_object("response_format.schema_json", wanted.schema_json)
    elif wanted.schema_json:
        raise FieldInvalid("response_format.schema_json", "a schema needs kind KIND_JSON_SCHEMA.")
    return ResponseFormat(kind, wanted.schema_json)


def _top_logprobs(request: inference_service_pb2.GenerateRequest) -> int | None:
    if not request.HasField("top_logprobs_count"):
        return None
    if not 0 <= request.top_logprobs_count <= MOST_LOGPROBS:
        raise FieldInvalid(
            "top_logprobs_count", f"{request.top_logprobs_count} is out of range; use 0 to {MOST_LOGPROBS}."
        )
    return request.top_logprobs_count
