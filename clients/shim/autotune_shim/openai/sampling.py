"""The request fields that chat completions and completions share, and their place in GenerateRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from autotune.v1 import inference_service_pb2 as wire

from autotune_shim.exchange import Headers, RequestInvalid

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]

_PROFILES: Mapping[str, wire.Profile] = {
    "fast": wire.PROFILE_FAST,
    "balanced": wire.PROFILE_BALANCED,
    "quality": wire.PROFILE_QUALITY,
}
_PROFILE_HEADER = "x-autotune-profile"


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """How to stream. Obfuscation pads chunks against eavesdroppers; on one machine there are none."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SharedFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What both kinds of request have. Every field may be null, which is the same as absent."""

    model: str | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=5)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Ratio | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0)] | None = None
    logit_bias: (
        dict[
            Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)], Annotated[float, msgspec.Meta(ge=-100, le=100)]
        ]
        | None
    ) = None
    stop: str | list[str] | None = None
    max_tokens: Count | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    profile: str | None = None
    user: object = None
    """Harmless: it names the caller's user."""

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def new_request(fields: SharedFields, headers: Headers) -> wire.GenerateRequest:
    """A request with the shared fields; null ones stay absent. Raises RequestInvalid."""
    if fields.n not in (None, 1):
        raise RequestInvalid(
            "n: one answer is made for each request; send the request several times.",
            field="n",
            code="unsupported_value",
        )
    sampling = wire.Sampling(
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        min_p=fields.min_p,
        seed=fields.seed,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        repeat_penalty=fields.repetition_penalty,
        logit_bias=fields.logit_bias,
    )
    return wire.GenerateRequest(
        model=fields.model,
        sampling=sampling,
        max_reply_tokens=fields.max_tokens,
        stop_sequences=[fields.stop] if isinstance(fields.stop, str) else fields.stop,
        profile=_profile(fields.profile, headers),
    )


def _profile(named: str | None, headers: Headers) -> wire.Profile:
    """The profile of the body, else of the header, else the daemon's own."""
    field = "profile" if named is not None else _PROFILE_HEADER
    name = named if named is not None else headers.get(_PROFILE_HEADER)
    if name is None:
        return wire.PROFILE_UNSPECIFIED
    profile = _PROFILES.get(name)
    if profile is None:
        raise RequestInvalid(
            f'{field}: "{name}" is not a profile; use fast, balanced or quality.', field=field
        )
    return profile
