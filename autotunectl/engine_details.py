"""What one engine can and cannot do, in words. Pure. ``engines --verbose`` shows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from autotune.v1 import engine_service_pb2

from autotunectl.json_output import enum_text
from autotunectl.output import format_bytes, format_seconds, one_line
from autotunectl.plans import indented

_FEATURES = {
    "json-schema": "JSON schemas",
    "logprobs": "log probabilities",
    "kv-prefixes": "saved KV prefixes",
    "tool-choice": "a forced choice of tools",
    "counts-before-prefill": "token counts before prefill",
    "counts-cached": "counts of cached tokens",
    "prefills": "prewarming",
    "continues-replies": "going on with a begun reply",
}
_CIRCUMSTANCES = frozenset({"is-local", "has-gpu"})
"""Among the features, but nothing that a request could ask for."""

_SCOPES = {
    engine_service_pb2.KNOB_SCOPE_REQUEST: "with each request",
    engine_service_pb2.KNOB_SCOPE_LOAD: "at a load",
    engine_service_pb2.KNOB_SCOPE_SERVER: "for the whole server",
    engine_service_pb2.KNOB_SCOPE_NONE: "nowhere",
}


def state_text(engine: engine_service_pb2.Engine) -> str:
    """How it stands, in words."""
    return enum_text(engine, "state").replace("_", " ")


def details_text(engine: engine_service_pb2.Engine, now: float) -> str:
    """All there is to know beside the table. ``now``: seconds since the epoch."""
    return f"\n{one_line(engine.name)}:\n{indented(list(_lines(engine, now)))}"


def _lines(engine: engine_service_pb2.Engine, now: float) -> Iterator[tuple[str, str]]:
    yield "can", _features(engine.features) or "nothing"
    if missing := _features(engine.missing_features):
        yield "cannot", missing
    if engine.missing_sampling:
        yield "cannot", f"the sampling options {', '.join(engine.missing_sampling)}"
    if engine.slots_count:
        requests = "1 request" if engine.slots_count == 1 else f"{engine.slots_count:,} requests"
        where = ", elsewhere" if "is-local" in engine.missing_features else ""
        yield "runs", f"{requests} of a model at the same time{where}"
    for scope, text in _SCOPES.items():
        if names := [_knob(knob.name) for knob in engine.knobs if knob.scope == scope]:
            yield "set", f"{text}: {', '.join(names)}"
    for setting in engine.server_settings:
        yield "setting", f"{setting.name} = {setting.value}"
    for resident in engine.residents:
        yield "holds", _resident_text(resident, now)


def _knob(name: str) -> str:
    """For example "GPU layers"."""
    return name.removesuffix("_count").replace("_", " ").replace("gpu", "GPU")


def _features(names: Iterable[str]) -> str:
    return ", ".join(
        _FEATURES.get(name, name.replace("-", " ")) for name in names if name not in _CIRCUMSTANCES
    )


def _resident_text(resident: engine_service_pb2.EngineResident, now: float) -> str:
    parts = [resident.model]
    if resident.context_tokens:
        parts.append(f"{resident.context_tokens:,} tokens of context")
    if resident.memory_bytes:
        parts.append(format_bytes(resident.memory_bytes))
    if resident.accelerator_memory_bytes:
        parts.append(f"{format_bytes(resident.accelerator_memory_bytes)} of it the accelerator's")
    if resident.HasField("expiry_time"):
        parts.append(f"leaves in {format_seconds(max(0.0, resident.expiry_time.seconds - now))}")
    return ", ".join(parts)
