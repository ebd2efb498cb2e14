"""Wire to core: the fields that several requests have, each checked in one place.

Called by ``request`` and ``models``. Invariant: a value that comes out is in range; one that is not is
refused by the name of its field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import grpc
from autotune.v1 import inference_service_pb2, model_service_pb2
from google.protobuf.message import Message

from autotuned.core.chat import ProfileName, ReasoningEffort
from autotuned.core.errors import FieldInvalid
from autotuned.core.memory import SwapPolicy

CLIENT_KEY = "autotune-client"
LONGEST_CLIENT = 100
LONGEST_KEEP_ALIVE_SECONDS = 366 * 24 * 3600.0
FOR_EVER_SECONDS = -1.0

_Value = TypeVar("_Value")
# A version changes while the habits of a program stay: it is no part of who asks.
_VERSION = re.compile(r"/v?[0-9].*$")

_PROFILES: Mapping[int, ProfileName | None] = {
    inference_service_pb2.PROFILE_UNSPECIFIED: None,
    inference_service_pb2.PROFILE_FAST: ProfileName.FAST,
    inference_service_pb2.PROFILE_BALANCED: ProfileName.BALANCED,
    inference_service_pb2.PROFILE_QUALITY: ProfileName.QUALITY,
}
_EFFORTS: Mapping[int, ReasoningEffort | None] = {
    inference_service_pb2.REASONING_EFFORT_UNSPECIFIED: None,
    inference_service_pb2.REASONING_EFFORT_NONE: ReasoningEffort.NONE,
    inference_service_pb2.REASONING_EFFORT_LOW: ReasoningEffort.LOW,
    inference_service_pb2.REASONING_EFFORT_MEDIUM: ReasoningEffort.MEDIUM,
    inference_service_pb2.REASONING_EFFORT_HIGH: ReasoningEffort.HIGH,
}
_SWAP_POLICIES: Mapping[int, SwapPolicy | None] = {
    inference_service_pb2.SWAP_POLICY_UNSPECIFIED: None,
    inference_service_pb2.SWAP_POLICY_ALLOW: SwapPolicy.ALLOW,
    inference_service_pb2.SWAP_POLICY_NEVER: SwapPolicy.NEVER,
}


def profile_name(value: int) -> ProfileName | None:
    """The profile of a wire value; None is the daemon's default."""
    return known("profile", _PROFILES, value)


def reasoning_effort(value: int) -> ReasoningEffort | None:
    """How long the model thinks; None is the model's own default."""
    return known("reasoning_effort", _EFFORTS, value)


def swap_policy(value: int) -> SwapPolicy | None:
    """Whether a load may swap; None is the configured policy."""
    return known("swap_policy", _SWAP_POLICIES, value)


def positive(request: Message, field: str) -> int | None:
    """An optional number from 1; None where it is absent."""
    if not request.HasField(field):
        return None
    value = int(getattr(request, field))
    if value < 1:
        raise FieldInvalid(field, f"{value} is out of range; use 1 or more.")
    return value


def keep_alive_seconds(
    request: inference_service_pb2.GenerateRequest | model_service_pb2.LoadModelRequest,
) -> float | None:
    """How long a model stays after its last use; -1 until its memory is needed, None as configured."""
    if not request.HasField("keep_alive_duration"):
        return None
    duration = request.keep_alive_duration
    seconds = duration.seconds + duration.nanos / 1e9
    if seconds < 0:
        return FOR_EVER_SECONDS
    if seconds > LONGEST_KEEP_ALIVE_SECONDS:
        raise FieldInvalid(
            "keep_alive_duration",
            f"{seconds:,.0f} s is out of range; use 0 s to {LONGEST_KEEP_ALIVE_SECONDS:,.0f} s, "
            "or a negative time to keep the model until its memory is needed.",
        )
    return seconds


def known(field: str, values: Mapping[int, _Value], value: int) -> _Value:
    """What an enum's value stands for; one of a newer client is refused."""
    if value not in values:
        raise FieldInvalid(field, f"{value} is not a known value; use one of the enum's.")
    return values[value]


def client_of(context: grpc.aio.ServicerContext) -> str:
    """Who calls, without a version: what the client says of itself, "" where it says nothing."""
    for key, value in context.invocation_metadata() or ():
        if key == CLIENT_KEY and isinstance(value, str):
            return _VERSION.sub("", value)[:LONGEST_CLIENT]
    return ""
