"""Models on disk and in memory, as values.

Engines make ``ModelEntry`` and ``ModelFacts``; ``services.models`` makes ``RunningModel``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from autotuned.core.plan import LoadShape, Reason


class ModelState(Enum):
    """Where a model is in its life."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class LoadPhase(Enum):
    """What part of a load is under way, in this order."""

    STARTING = "starting"
    READING_WEIGHTS = "reading weights"
    ALLOCATING = "allocating"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load has come."""

    phase: LoadPhase
    elapsed_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model file says of itself.

    ``kv_heads_per_layer`` has one entry a layer. ``key_length`` and ``value_length`` are elements
    of one head. ``kv_is_dense`` is False where layers keep less or other state than plain attention
    (sliding windows, latent attention, recurrent layers): dense arithmetic is then an upper bound.
    ``parameters_count`` is 0 where the file does not tell.
    """

    architecture: str
    name: str
    quantization: str
    parameters_count: int
    weights_bytes: int
    layers_count: int
    embedding_length: int
    kv_heads_per_layer: tuple[int, ...]
    key_length: int
    value_length: int
    train_context_tokens: int
    kv_is_dense: bool
    chat_template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model that an engine can run. ``facts`` is None and ``problem`` says why where it cannot."""

    id: str
    engine: str
    path: str
    size_bytes: int
    facts: ModelFacts | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningModel:
    """A model in memory or on its way into it. Times are seconds since the epoch; 0 is unknown."""

    id: str
    engine: str
    state: ModelState
    incarnation_id: str
    shape: LoadShape | None
    kv_cache_bytes: int
    weights_bytes: int
    resident_memory_bytes: int
    process_id: int
    loaded_at: float
    last_used_at: float
    load_seconds: float
    active_requests_count: int
    queued_requests_count: int
    reasons: tuple[Reason, ...]
