"""The shape of a loaded model, what a request needs of it, and the plan that joins the two.

``policy.plan`` makes plans; ``services.models`` carries them out; engines load shapes.
Invariant: a loaded model has one shape until it is unloaded or grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class KvCacheType(Enum):
    """How one element of the KV cache is stored."""

    F16 = "f16"
    Q8_0 = "q8_0"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadShape:
    """Everything about a load that memory and speed depend on.

    ``context_tokens`` is what one slot holds, prompt and reply together. ``batch_tokens`` bounds
    how long a cancel waits in prefill; ``micro_batch_tokens`` is what one computation holds.
    """

    context_tokens: int
    slots_count: int
    key_cache_type: KvCacheType
    value_cache_type: KvCacheType
    batch_tokens: int
    micro_batch_tokens: int
    flash_attention: bool
    gpu_layers_count: int


class PlanAction(Enum):
    """What a plan does with the model's place in memory."""

    REUSE = "reuse"
    LOAD = "load"
    GROW = "grow"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason of a decision: a stable kebab-case code and a plain sentence."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a request needs of a loaded model.

    ``prompt_tokens`` is exact when ``prompt_is_exact``, else an estimate for sizing.
    ``reply_tokens`` is the room that the reply should have.
    ``context_tokens`` overrides the computed context when it is not None.
    """

    prompt_tokens: int
    prompt_is_exact: bool
    reply_tokens: int
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A decision: what happens, the shape it leads to, its bytes, and why in plain words."""

    action: PlanAction
    shape: LoadShape
    kv_cache_bytes: int
    weights_bytes: int
    reasons: tuple[Reason, ...]
