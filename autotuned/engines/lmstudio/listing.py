"""What LM Studio's server lists: its models, and the instances of them in memory.

``rest`` decodes answers with it. The first API (v0) tells less than the second (v1): what it leaves out is
0, "" or None here. Embedding models are left out.
Invariant: an entry that cannot be read hides itself alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeVar

import msgspec

from autotuned.engines.answers import UNREADABLE, context, count

# More slots than this no server has.
MOST_SLOTS = 1024


class Api(Enum):
    """The two generations of LM Studio's own API. Only V1, of LM Studio 0.4.0, can load and unload."""

    V0 = "v0"
    V1 = "v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedInstance:
    """A model in memory. ``slots_count`` and ``batch_tokens`` 0, ``flash_attention`` None: it is not told."""

    id: str
    context_tokens: int
    slots_count: int = 0
    batch_tokens: int = 0
    flash_attention: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model that LM Studio can run. ``size_bytes`` is -1 where it is not told."""

    key: str
    publisher: str
    name: str
    architecture: str
    quantization: str
    size_bytes: int
    context_tokens: int
    is_gguf: bool
    sees: bool
    calls_tools: bool
    thinks: bool
    instances: tuple[ListedInstance, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Everything that a server listed at one time."""

    api: Api
    models: dict[str, ListedModel] = field(default_factory=dict)

    def instances(self) -> Iterator[ListedInstance]:
        """What is in memory, of all models."""
        for model in self.models.values():
            yield from model.instances

    def instances_of(self, key: str) -> tuple[ListedInstance, ...]:
        """What is in memory of one model, the largest context first."""
        model = self.models.get(key)
        return tuple(sorted(model.instances, key=lambda each: -each.context_tokens)) if model else ()


class InstanceConfig(msgspec.Struct):
    """The configuration of an instance, as far as it applies to its engine."""

    context_length: float = 0
    eval_batch_size: float | None = None
    parallel: float | None = None
    flash_attention: bool | None = None


class _Instance(msgspec.Struct):
    id: str
    config: InstanceConfig


class _Quantization(msgspec.Struct):
    name: str | None = None


class _Abilities(msgspec.Struct):
    vision: bool = False
    trained_for_tool_use: bool = False
    reasoning: Any = None


class _ModelV1(msgspec.Struct):
    key: str
    type: str = "llm"
    publisher: str | None = None
    display_name: str | None = None
    architecture: str | None = None
    quantization: _Quantization | None = None
    size_bytes: float | None = None
    loaded_instances: list[_Instance] = []
    max_context_length: float | None = None
    format: str | None = None
    capabilities: _Abilities = msgspec.field(default_factory=_Abilities)


class _ModelV0(msgspec.Struct):
    id: str
    type: str = "llm"
    publisher: str | None = None
    arch: str | None = None
    compatibility_type: str | None = None
    quantization: str | None = None
    state: str = ""
    max_context_length: float | None = None
    loaded_context_length: float | None = None
    capabilities: list[str] = []


class _BodyV1(msgspec.Struct):
    models: list[msgspec.Raw]


class _BodyV0(msgspec.Struct):
    data: list[msgspec.Raw]


_Entry = TypeVar("_Entry")


def read_v1(body: bytes) -> Listing | None:
    """The list of the second API; None for another answer."""
    try:
        raw = msgspec.json.decode(body, type=_BodyV1).models
    except UNREADABLE:
        return None
    models = [_from_v1(entry) for entry in _sound(raw, _ModelV1) if entry.type == "llm"]
    return Listing(api=Api.V1, models={model.key: model for model in models})


def read_v0(body: bytes) -> Listing | None:
    """The list of the first API; None for another answer.

    It has a second instance of a model as an entry of its own, called like the model with ":2" behind.
    """
    try:
        raw = msgspec.json.decode(body, type=_BodyV0).data
    except UNREADABLE:
        return None
    models: dict[str, ListedModel] = {}
    for entry in _sound(raw, _ModelV0):
        if entry.type not in {"llm", "vlm"}:
            continue
        base, _, number = entry.id.rpartition(":")
        if number.isdecimal() and base in models:
            first = models[base]
            models[base] = replace(first, instances=(*first.instances, *_instances_v0(entry)))
        else:
            models[entry.id] = _from_v0(entry)
    return Listing(api=Api.V0, models=models)


def instance_of(instance_id: str, config: InstanceConfig) -> ListedInstance:
    """An instance with its configuration."""
    return ListedInstance(
        id=instance_id,
        context_tokens=context(config.context_length),
        slots_count=min(count(config.parallel), MOST_SLOTS),
        batch_tokens=context(config.eval_batch_size),
        flash_attention=config.flash_attention,
    )


def _sound(raw: list[msgspec.Raw], kind: type[_Entry]) -> Iterator[_Entry]:
    for each in raw:
        try:
            entry = msgspec.json.decode(each, type=kind)
        except UNREADABLE:
            continue
        yield entry


def _from_v1(entry: _ModelV1) -> ListedModel:
    return ListedModel(
        key=entry.key,
        publisher=entry.publisher or "",
        name=entry.display_name or entry.key,
        architecture=entry.architecture or "",
        quantization=(entry.quantization.name if entry.quantization else None) or "",
        size_bytes=count(entry.size_bytes) or -1,
        context_tokens=context(entry.max_context_length),
        is_gguf=entry.format == "gguf",
        sees=entry.capabilities.vision,
        calls_tools=entry.capabilities.trained_for_tool_use,
        thinks=entry.capabilities.reasoning is not None,
        instances=tuple(instance_of(each.id, each.config) for each in entry.loaded_instances),
    )


def _from_v0(entry: _ModelV0) -> ListedModel:
    return ListedModel(
        key=entry.id,
        publisher=entry.publisher or "",
        name=entry.id,
        architecture=entry.arch or "",
        quantization=entry.quantization or "",
        size_bytes=-1,
        context_tokens=context(entry.max_context_length),
        is_gguf=entry.compatibility_type == "gguf",
        sees=entry.type == "vlm",
        calls_tools="tool_use" in entry.capabilities,
        thinks=False,
        instances=_instances_v0(entry),
    )


def _instances_v0(entry: _ModelV0) -> tuple[ListedInstance, ...]:
    if entry.state != "loaded":
        return ()
    return (ListedInstance(id=entry.id, context_tokens=context(entry.loaded_context_length)),)
