"""Models on disk and in memory, as values.

Engines make ``ModelEntry`` and ``ModelFacts``; ``services.models`` makes ``RunningModel``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape, Reason

EMBEDDED_ENGINE = "llamacpp"
"""The engine that comes with the daemon; its models go by their bare ids."""


class ModelState(Enum):
    """Where a model is in its life."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class CacheLayout(Enum):
    """Whose way it is to lay out KV cache and recurrent state in memory."""

    LLAMACPP = "llamacpp"
    MLX = "mlx"


class LoadPhase(Enum):
    """What part of a load is under way, in this order; WAITING alone comes before a load, after crashes."""

    WAITING = "waiting"
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
class LayerGroup:
    """Layers that keep the same: for each token in the attention cache, for each sequence beside it.

    ``key_length`` and ``value_length`` are elements of one head's vector. Latent attention has one
    head whose key is the latent vector with its rope part, and no values. ``window_tokens`` is 0
    for layers that attend to everything. ``recurrent_elements`` are F32 numbers of each sequence,
    whatever the context. All zero: the layers use another layer's cache, or have no state. Lengths
    without KV heads: layers that attend to nothing but have a place in the cache. ``recurrent_bytes`` is
    recurrent state that an engine keeps in types of its own, beside or instead of those numbers.
    """

    layers_count: int
    kv_heads: int = 0
    key_length: int = 0
    value_length: int = 0
    window_tokens: int = 0
    recurrent_elements: int = 0
    recurrent_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model file says of itself.

    ``digest`` names the content: equal digests have equal weights. ``weights_bytes_by_type`` has the
    bytes of each tensor type, largest first. ``layer_groups`` add up to ``layers_count``.
    ``parameters_count`` is 0 where the file does not tell. ``calls_tools`` and ``thinks`` are what the
    chat template can do; ``modalities`` what the model reads ("text", "image", "audio"). A context above
    ``position_switch_tokens`` encodes positions otherwise than one up to it; 0: all do it alike.
    ``cache_layout`` is that of the engine which runs the file, ``cache_element_bytes`` what it keeps an
    element of the cache in where that is not quantised.
    """

    digest: str
    architecture: str
    name: str
    quantization: str
    parameters_count: int
    weights_bytes: int
    weights_bytes_by_type: tuple[tuple[str, int], ...]
    layers_count: int
    embedding_length: int
    vocabulary_size: int
    layer_groups: tuple[LayerGroup, ...]
    train_context_tokens: int
    chat_template: str
    calls_tools: bool = False
    thinks: bool = False
    modalities: tuple[str, ...] = ("text",)
    position_switch_tokens: int = 0
    cache_layout: CacheLayout = CacheLayout.LLAMACPP
    cache_element_bytes: int = 2

    @property
    def rewinds(self) -> bool:
        """Whether the KV cache can go back to any token: no windows and no recurrent state.

        Only then is a saved state of use to a request that begins like it and goes on differently.
        """
        return not any(
            group.window_tokens or group.recurrent_elements or group.recurrent_bytes
            for group in self.layer_groups
        )

    @property
    def saves_state(self) -> bool:
        """Whether a saved state is of use: to a request that goes on from its very end, if to no other.

        What llama.cpp saves of a model that cannot rewind lacks the checkpoints that it would go back to.
        """
        return self.rewinds or self.cache_layout is CacheLayout.MLX


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model that an engine can run. ``facts`` is None and ``problem`` says why where it cannot.

    ``path`` is a file, a folder or, for a model of a server, its URL.
    """

    id: str
    engine: str
    path: str
    size_bytes: int
    facts: ModelFacts | None
    problem: str = ""

    @property
    def key(self) -> str:
        """Unique among all engines: the id, after its engine where that is not the embedded one."""
        return self.id if self.engine == EMBEDDED_ENGINE else f"{self.engine}/{self.id}"

    @property
    def learned_as(self) -> str:
        """The name for what is learned of its content, as its engine runs it; "" without facts."""
        if self.facts is None:
            return ""
        return self.facts.digest if self.engine == EMBEDDED_ENGINE else f"{self.engine} {self.facts.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningModel:
    """A model in memory or on its way into it. Times are seconds since the epoch; 0 is unknown.

    ``expires_at`` is when it leaves if nobody uses it; 0: it stays until its memory is needed.
    ``loaded_by_others``: its engine's server has it, and the daemon did not load it.
    """

    id: str
    engine: str
    state: ModelState
    incarnation_id: str
    shape: LoadShape | None
    footprint: Footprint | None
    expires_at: float
    resident_memory_bytes: int
    process_id: int
    loaded_at: float
    last_used_at: float
    load_seconds: float
    active_requests_count: int
    queued_requests_count: int
    reasons: tuple[Reason, ...]
    loaded_by_others: bool = False
