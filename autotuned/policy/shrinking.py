"""What a loaded model that nobody uses gives back while memory is short.

``services`` ask, through ``plan``, when the pressure tier rises. Invariant: the live conversation of a
model that shrinks still fits into it.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.memory import PressureTier
from autotuned.core.plan import LoadShape, Plan, PlanAction
from autotuned.policy import reasons_memory
from autotuned.policy.cache_types import CacheTypes, smaller_types
from autotuned.policy.draft import next_draft
from autotuned.policy.fit import budget_of, fit_of, safe_context
from autotuned.policy.footprint import estimate_footprint
from autotuned.policy.kv import state_bytes
from autotuned.policy.situation import Situation
from autotuned.policy.sizing import (
    ASSUMED_TRAIN_CONTEXT_TOKENS,
    SPARE_TOKENS,
    snap_up,
)

WORTHWHILE_BYTES = 64 << 20
WORTHWHILE_DIVISOR = 10


def shrink(situation: Situation, kept_tokens: int) -> Plan | None:
    """What a loaded model that nobody uses gives back at this pressure; None where it stays as it is.

    ``kept_tokens`` are those of its live conversation, which still fit. From HIGH pressure on it takes
    the bucket that holds them. Other KV types lose what was computed: they are the last resort, at
    CRITICAL, where a smaller context gives nothing worthwhile.
    What is not worth a reload is not given back: less than 64 MiB or a tenth of the state.
    """
    loaded = situation.loaded
    if loaded is None or situation.memory.pressure < PressureTier.HIGH:
        return None
    types = CacheTypes(loaded.key_cache_type, loaded.value_cache_type)
    shape = _smaller(loaded, kept_tokens, types)
    if not _is_worthwhile(situation, loaded, shape):
        if situation.memory.pressure < PressureTier.CRITICAL:
            return None
        types = smaller_types(types, situation.facts, situation.defaults)
        shape = _smaller(loaded, kept_tokens, types)
        if not _is_worthwhile(situation, loaded, shape):
            return None
    freed_bytes = _freed_bytes(situation, loaded, shape)
    memory, facts = situation.memory, situation.facts
    footprint = estimate_footprint(facts, shape, situation.learned)
    budget = budget_of(situation)
    ceiling = max(facts.train_context_tokens or ASSUMED_TRAIN_CONTEXT_TOKENS, shape.context_tokens)
    safe = safe_context(next_draft(situation, loaded), types, budget, ceiling)
    available = memory.reading.available_bytes
    return Plan(
        action=PlanAction.SHRINK,
        shape=shape,
        footprint=footprint,
        reasons=reasons_memory.shrunk(facts, memory, loaded, shape, freed_bytes),
        fit=fit_of(footprint.total_bytes, budget, safe),
        available_before_bytes=available,
        available_after_bytes=available + freed_bytes,
        pressure=memory.pressure,
    )


def _is_worthwhile(situation: Situation, loaded: LoadShape, smaller: LoadShape) -> bool:
    freed_bytes = _freed_bytes(situation, loaded, smaller)
    return freed_bytes >= WORTHWHILE_BYTES and freed_bytes * WORTHWHILE_DIVISOR >= state_bytes(
        situation.facts, loaded
    )


def _freed_bytes(situation: Situation, loaded: LoadShape, smaller: LoadShape) -> int:
    return state_bytes(situation.facts, loaded) - state_bytes(situation.facts, smaller)


def _smaller(loaded: LoadShape, kept_tokens: int, types: CacheTypes) -> LoadShape:
    context = snap_up(kept_tokens + SPARE_TOKENS, loaded.context_tokens)
    batch = min(loaded.batch_tokens, context)
    return replace(
        loaded,
        context_tokens=context,
        key_cache_type=types.key,
        value_cache_type=types.value,
        batch_tokens=batch,
        micro_batch_tokens=min(loaded.micro_batch_tokens, batch),
        host_prompt_cache_bytes=0,
    )
