"""What both clients send and return beyond the wire messages themselves. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.chat import Conversation, conversation_input, duration, profile_value, swap_policy
from autotune.errors import encoding_checked
from autotune.v1 import model_pb2, model_service_pb2, system_service_pb2

PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class ModelList:
    """All models by id, and the id of the one that a request without a model gets."""

    models: list[model_pb2.Model]
    default_model: str


def get_model_request(model: str, engine: str = "") -> model_service_pb2.GetModelRequest:
    """Asks for one model. Raises FieldInvalid for a name that is no Unicode."""
    with encoding_checked("model"):
        return model_service_pb2.GetModelRequest(model=model, engine=engine)


def unload_model_request(model: str, engine: str = "") -> model_service_pb2.UnloadModelRequest:
    """Unloads one model, wherever it is in memory or from one engine.

    Raises FieldInvalid for a name that is no Unicode.
    """
    with encoding_checked("model"):
        return model_service_pb2.UnloadModelRequest(model=model, engine=engine)


def load_model_request(
    model: str,
    context_tokens: int | None = None,
    *,
    profile: str = "",
    no_swap: bool | None = None,
    keep_alive_seconds: float | None = None,
    engine: str = "",
) -> model_service_pb2.LoadModelRequest:
    """Loads one model; options as in ``chat_request``. Raises FieldInvalid for what no message can hold."""
    wire_profile = profile_value(profile)
    keep_alive = duration("keep_alive_duration", keep_alive_seconds)
    with encoding_checked("model"):
        return model_service_pb2.LoadModelRequest(
            model=model,
            context_tokens=context_tokens,
            profile=wire_profile,
            swap_policy=swap_policy(no_swap),
            keep_alive_duration=keep_alive,
            engine=engine,
        )


def plan_model_request(
    model: str = "",
    *,
    prompt: Conversation | int | None = None,
    profile: str = "",
    max_reply_tokens: int | None = None,
    context_tokens: int | None = None,
    no_swap: bool | None = None,
    engine: str = "",
) -> model_service_pb2.PlanModelRequest:
    """Plans for a prompt: its number of tokens, a conversation, or None for one of which nothing is known.

    The rest is as in ``autotune.chat_request``. Raises FieldInvalid for what cannot be put on the wire.
    """
    wire_profile = profile_value(profile)
    with encoding_checked("request"):
        request = model_service_pb2.PlanModelRequest(
            model=model,
            profile=wire_profile,
            max_reply_tokens=max_reply_tokens,
            context_tokens=context_tokens,
            swap_policy=swap_policy(no_swap),
            engine=engine,
        )
    with encoding_checked("prompt"):
        if isinstance(prompt, int):
            request.prompt_tokens = prompt
        elif prompt is not None:
            request.chat.CopyFrom(conversation_input(prompt))
    return request


def pull_model_request(
    model: str, engine: str = "", *, allow_too_large: bool = False
) -> model_service_pb2.PullModelRequest:
    """Downloads one model. Raises FieldInvalid for a name that is no Unicode."""
    with encoding_checked("model"):
        return model_service_pb2.PullModelRequest(model=model, engine=engine, allow_too_large=allow_too_large)


def delete_model_request(model: str, engine: str = "") -> model_service_pb2.DeleteModelRequest:
    """Deletes one model from the disk, wherever it is or one engine's copy.

    Raises FieldInvalid for a name that is no Unicode.
    """
    with encoding_checked("model"):
        return model_service_pb2.DeleteModelRequest(model=model, engine=engine)


def resolve_pull_request(model: str, engine: str = "") -> model_service_pb2.ResolvePullRequest:
    """Asks what a pull would take. Raises FieldInvalid for a name that is no Unicode."""
    with encoding_checked("model"):
        return model_service_pb2.ResolvePullRequest(model=model, engine=engine)


def delete_prefixes_request(model: str) -> model_service_pb2.DeletePrefixesRequest:
    """Deletes the prefixes of one model, or of all. Raises FieldInvalid for a name that is no Unicode."""
    with encoding_checked("model"):
        return model_service_pb2.DeletePrefixesRequest(model=model)


def watch_snapshots_request(interval_seconds: float) -> system_service_pb2.WatchSnapshotsRequest:
    """Watches with this interval. Raises FieldInvalid for one that is no duration."""
    interval = duration("interval_duration", interval_seconds)
    return system_service_pb2.WatchSnapshotsRequest(interval_duration=interval)
