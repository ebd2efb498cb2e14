"""The shape of a loaded model, what a request needs of it, and the plan that joins the two.

``policy.plan`` makes plans; ``services`` carry them out; engines load shapes.
Invariant: a loaded model has one shape until it is unloaded, grows, or shrinks under pressure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from autotuned.core.chat import ProfileName
from autotuned.core.memory import Footprint, PressureTier, SwapPolicy

# Attention with windows and recurrent layers cannot go back: a slot restarts from so many copies of
# their state, which engines keep and ``policy.kv`` counts.
CONTEXT_CHECKPOINTS_COUNT = 2


class KvCacheType(Enum):
    """How one element of the KV cache is stored."""

    F16 = "f16"
    Q8_0 = "q8_0"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadShape:
    """Everything about a load that memory and speed depend on.

    ``context_tokens`` is what one slot holds, prompt and reply together; with ``kv_unified`` it is
    what all slots hold together. ``batch_tokens`` bounds how long a cancel waits in prefill;
    ``micro_batch_tokens`` is what one computation holds. ``host_prompt_cache_bytes`` is the most
    memory for KV states of conversations that are in no slot. ``memory_mapped`` weights stay in the
    page cache of their file. ``assumed`` names the fields that the engine decides for itself and does not
    tell: what stands there was assumed, not set.
    """

    context_tokens: int
    slots_count: int
    kv_unified: bool
    key_cache_type: KvCacheType
    value_cache_type: KvCacheType
    batch_tokens: int
    micro_batch_tokens: int
    flash_attention: bool
    gpu_layers_count: int
    host_prompt_cache_bytes: int
    memory_mapped: bool
    assumed: tuple[str, ...] = ()


class PlanAction(Enum):
    """What a plan does with the model's place in memory."""

    REUSE = "reuse"
    LOAD = "load"
    GROW = "grow"
    SHRINK = "shrink"


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
    ``session_tokens`` is what the whole session is expected to come to, prompt and reply of its last
    turn together; 0 where nothing is expected beyond this request.
    ``context_tokens`` overrides the computed context when it is not None.
    ``profile`` decides the KV type of a first load; ``swap_policy`` whether it may swap.
    """

    prompt_tokens: int
    prompt_is_exact: bool
    reply_tokens: int
    session_tokens: int = 0
    context_tokens: int | None = None
    profile: ProfileName = ProfileName.BALANCED
    swap_policy: SwapPolicy = SwapPolicy.ALLOW

    @property
    def prompt_is_unknown(self) -> bool:
        """Whether nothing is known of the prompt yet: that is what an estimate of 0 says."""
        return self.prompt_tokens == 0 and not self.prompt_is_exact


class FitClass(Enum):
    """How a load fits into memory, best first."""

    SAFE = "safe"
    MARGINAL = "marginal"
    SWAP_RISK = "swap risk"
    OOM = "out of memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A load against the memory that can be had: free, and that of idle models which would leave.

    ``safe_context_tokens`` is the largest context that is not at risk, and the ceiling that plans
    use; 0 where even the smallest is at risk. It is that of the KV types that the load has: smaller ones
    would hold more.
    """

    fit_class: FitClass
    required_bytes: int
    available_bytes: int
    safe_context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A decision: what happens, the shape it leads to, its bytes, and why in plain words.

    ``fit`` is None where the loaded shape is kept. ``evictions`` are ids of idle models that leave,
    in order. ``reduction_level`` is that of the ladder in ``policy.noswap``; 0 gave nothing up.
    ``available_after_bytes`` is computed, ``available_before_bytes`` was read; both are 0 where
    memory was not looked at.
    """

    action: PlanAction
    shape: LoadShape
    footprint: Footprint
    reasons: tuple[Reason, ...]
    fit: Fit | None = None
    evictions: tuple[str, ...] = ()
    reduction_level: int = 0
    available_before_bytes: int = 0
    available_after_bytes: int = 0
    pressure: PressureTier = PressureTier.NORMAL

    def with_reasons_before(self, reasons: tuple[Reason, ...]) -> Plan:
        """The same with more reasons, which come first."""
        return replace(self, reasons=reasons + self.reasons) if reasons else self
