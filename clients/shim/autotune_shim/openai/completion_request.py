"""POST /v1/completions: the request, into a GenerateRequest with a raw prompt."""

from __future__ import annotations

from typing import Annotated

import msgspec
from autotune.v1 import inference_service_pb2 as wire

from autotune_shim.exchange import Headers, RequestInvalid
from autotune_shim.json_body import decode_body
from autotune_shim.openai.sampling import SharedFields, new_request


class CompletionRequest(SharedFields, kw_only=True, forbid_unknown_fields=True):
    """The body. ``logprobs`` is a count here."""

    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: int | None = None


_decoder = msgspec.json.Decoder(CompletionRequest)


def read_completion_request(body: bytes, headers: Headers) -> tuple[CompletionRequest, wire.GenerateRequest]:
    """The body as it was sent, and what it asks of the daemon. Raises RequestInvalid."""
    fields = decode_body(_decoder, body)
    if fields.echo:
        raise RequestInvalid(
            "echo: not supported; the prompt is yours already.", field="echo", code="unsupported_parameter"
        )
    if fields.best_of not in (None, 1):
        raise RequestInvalid(
            "best_of: not supported; one answer is made for each request.",
            field="best_of",
            code="unsupported_parameter",
        )
    request = new_request(fields, headers)
    request.raw_prompt.prompt = _prompt(fields.prompt)
    request.raw_prompt.suffix = fields.suffix or ""
    if fields.logprobs is not None:
        request.top_logprobs_count = fields.logprobs
    return fields, request


def _prompt(prompt: str | list[str | int | list[int]]) -> str:
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], str):
        return prompt[0]
    if all(isinstance(part, str) for part in prompt):
        raise RequestInvalid(
            "prompt: one prompt is completed for each request; send the request several times.",
            field="prompt",
            code="unsupported_value",
        )
    raise RequestInvalid("prompt: send text instead of tokens.", field="prompt", code="unsupported_value")
