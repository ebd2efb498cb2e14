"""Joins what a request needs, what a model can and what is loaded into one plan with its reasons.

``services.models`` calls it whenever it grants a model, and carries the plan out. A loaded shape is
pinned: it is kept while it suffices, and when it does not, its context alone grows.
Invariant: a plan never shrinks a loaded context, its context holds prompt and reply or is all that
the model or the request allows, and its reasons say which.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotuned.core.errors import ContextTooLong, FieldInvalid
from autotuned.core.model import ModelFacts
from autotuned.core.plan import KvCacheType, LoadShape, Need, Plan, PlanAction, Reason
from autotuned.policy import reasons
from autotuned.policy.kv import fits_blocks, kv_cache_bytes, padded_context
from autotuned.policy.sizing import ASSUMED_TRAIN_CONTEXT_TOKENS, needed_context, snap_up, suffices


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeDefaults:
    """Everything of a load shape that does not follow from the request or the model."""

    slots_count: int
    batch_tokens: int
    micro_batch_tokens: int
    flash_attention: bool
    key_cache_type: KvCacheType
    value_cache_type: KvCacheType


def plan(facts: ModelFacts, need: Need, loaded: LoadShape | None, defaults: ShapeDefaults) -> Plan:
    """Decides whether the loaded shape is kept, grown, or a first one loaded.

    Raises ``ContextTooLong`` for an exact prompt that leaves no room for a single reply token, and
    ``FieldInvalid`` for a requested context that the model does not have. An estimated prompt is
    never refused: it is planned with the largest context, and the engine's own count decides.
    """
    ceiling = _largest_context(facts, need, loaded)
    _refuse_impossible(need, ceiling)
    if loaded is None:
        return _load(facts, need, ceiling, defaults)
    if suffices(loaded, need) or loaded.context_tokens >= ceiling:
        return _join(PlanAction.REUSE, facts, loaded, reasons.kept(need, loaded.context_tokens, ceiling))
    return _grow(facts, need, ceiling, loaded)


def plan_optimistically(
    facts: ModelFacts, need: Need, loaded: LoadShape | None, defaults: ShapeDefaults
) -> Plan:
    """``plan`` for a request that nobody has counted. Raises like it.

    A loaded model is asked to run and not to count: an estimated prompt is taken to fit, since the
    engine's first progress tells the exact number before anything is computed. Where the reply alone
    does not fit, the estimate counts, so that one growth suffices.
    """
    if loaded is not None and not need.prompt_is_exact and need.context_tokens is None:
        hopeful = plan(facts, replace(need, prompt_tokens=0), loaded, defaults)
        if hopeful.action is PlanAction.REUSE:
            return hopeful
    return plan(facts, need, loaded, defaults)


def _largest_context(facts: ModelFacts, need: Need, loaded: LoadShape | None) -> int:
    """The trained context; where the model tells none, an assumed one, or what is asked for or has worked."""
    if facts.train_context_tokens > 0:
        return facts.train_context_tokens
    asked = padded_context(need.context_tokens or 0)
    worked = loaded.context_tokens if loaded else 0
    return max(ASSUMED_TRAIN_CONTEXT_TOKENS, asked, worked)


def _refuse_impossible(need: Need, ceiling: int) -> None:
    if need.context_tokens is not None and need.context_tokens > ceiling:
        raise FieldInvalid("context_tokens", reasons.context_above(need.context_tokens, ceiling))
    context = ceiling if need.context_tokens is None else need.context_tokens
    if need.prompt_is_exact and need.prompt_tokens >= context:
        raise ContextTooLong(prompt_tokens=need.prompt_tokens, context_tokens=context)


def _load(facts: ModelFacts, need: Need, ceiling: int, defaults: ShapeDefaults) -> Plan:
    context = _next_context(need, ceiling)
    key_type, value_type, type_reasons = _cache_types(facts, defaults)
    batch = min(defaults.batch_tokens, context)
    shape = LoadShape(
        context_tokens=context,
        slots_count=defaults.slots_count,
        key_cache_type=key_type,
        value_cache_type=value_type,
        batch_tokens=batch,
        micro_batch_tokens=min(defaults.micro_batch_tokens, batch),
        flash_attention=defaults.flash_attention,
        gpu_layers_count=facts.layers_count + 1,
    )
    why = reasons.sized(need, context, ceiling) + _assumption(facts) + type_reasons
    return _join(PlanAction.LOAD, facts, shape, why)


def _grow(facts: ModelFacts, need: Need, ceiling: int, loaded: LoadShape) -> Plan:
    context = _next_context(need, ceiling)
    why = (
        *reasons.sized(need, context, ceiling),
        *_assumption(facts),
        reasons.grown(loaded.context_tokens, context),
    )
    return _join(PlanAction.GROW, facts, replace(loaded, context_tokens=context), why)


def _next_context(need: Need, ceiling: int) -> int:
    """A bucket, or the requested context in the engine's steps: what is planned is what is applied."""
    if need.context_tokens is not None:
        return min(padded_context(need.context_tokens), ceiling)
    return snap_up(needed_context(need), ceiling)


def _cache_types(
    facts: ModelFacts, defaults: ShapeDefaults
) -> tuple[KvCacheType, KvCacheType, tuple[Reason, ...]]:
    """The wanted types where the engine can store them, F16 and a reason where it cannot."""
    key_type, value_type = defaults.key_cache_type, defaults.value_cache_type
    why: tuple[Reason, ...] = ()
    if not fits_blocks(facts.key_length, key_type):
        key_type = KvCacheType.F16
        why += (reasons.odd_heads("key", facts.key_length),)
    if value_type is not KvCacheType.F16 and not defaults.flash_attention:
        value_type = KvCacheType.F16
        why += (reasons.NO_FLASH_ATTENTION,)
    if not fits_blocks(facts.value_length, value_type):
        value_type = KvCacheType.F16
        why += (reasons.odd_heads("value", facts.value_length),)
    return key_type, value_type, why


def _assumption(facts: ModelFacts) -> tuple[Reason, ...]:
    return (reasons.UNKNOWN_TRAIN_CONTEXT,) if facts.train_context_tokens <= 0 else ()


def _join(action: PlanAction, facts: ModelFacts, shape: LoadShape, why: tuple[Reason, ...]) -> Plan:
    """The plan with its bytes; one that changes memory also tells where they come from."""
    cache_bytes = kv_cache_bytes(
        facts,
        context_tokens=shape.context_tokens,
        slots_count=shape.slots_count,
        key_cache_type=shape.key_cache_type,
        value_cache_type=shape.value_cache_type,
        flash_attention=shape.flash_attention,
    )
    if action is not PlanAction.REUSE:
        why += reasons.cache(facts, shape, cache_bytes)
    return Plan(
        action=action,
        shape=shape,
        kv_cache_bytes=cache_bytes,
        weights_bytes=facts.weights_bytes,
        reasons=why,
    )
