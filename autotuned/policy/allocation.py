"""Loads and growths: the context that is wanted, the rung of it that memory allows, and who leaves for it.

``plan`` calls it for whatever the loaded shape does not hold. Invariant: what is planned fits with its
margin, or the request allows swapping and the reasons say so; the host prompt cache takes nothing that
anything else needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotuned.core.memory import Resident
from autotuned.core.plan import LoadShape, Need, Plan, PlanAction, Reason
from autotuned.policy import headroom, reasons, reasons_memory
from autotuned.policy.batch import prefill_tokens_per_second
from autotuned.policy.cache_types import CacheTypes, first_types, grown_types, smaller_types
from autotuned.policy.draft import Draft, first_draft, next_draft
from autotuned.policy.fit import Budget, budget_of, fit_of, safe_context
from autotuned.policy.kv import padded_context
from autotuned.policy.noswap import (
    SMALLEST_LEVEL,
    Choice,
    Rung,
    first_safe,
    ladder,
    last_resort,
    unchanged_context,
)
from autotuned.policy.prompt_cache import host_prompt_cache_bytes
from autotuned.policy.residency import evictions
from autotuned.policy.situation import Situation
from autotuned.policy.sizing import holds_small_reply, least_context, needed_context, snap_up


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What a load or growth starts from; ``types`` are those without any reduction."""

    need: Need
    situation: Situation
    ceiling: int
    draft: Draft
    types: CacheTypes
    budget: Budget


def load(need: Need, situation: Situation, ceiling: int) -> Plan:
    """A first shape. Raises ``WouldSwap`` where memory has no room for even the smallest."""
    types, type_reasons = first_types(need, situation)
    draft = first_draft(situation, types)
    attempt = _Attempt(need, situation, ceiling, draft, types, budget_of(situation))
    context, why = _wanted(attempt)
    rungs = _rungs(attempt, context)
    choice = first_safe(draft, rungs, attempt.budget)
    if choice is None:
        choice = last_resort(draft, rungs[-1], attempt.budget, need, ceiling)
    return _join(PlanAction.LOAD, attempt, rungs[0], choice, why + type_reasons)


def grow(need: Need, situation: Situation, loaded: LoadShape, ceiling: int) -> Plan | None:
    """A larger context; None where memory has none to give and the loaded one holds a small reply.

    Raises ``WouldSwap`` where it does not even do that.
    """
    types, type_reasons = grown_types(loaded, situation)
    draft = next_draft(situation, loaded)
    attempt = _Attempt(need, situation, ceiling, draft, types, budget_of(situation))
    context, why = _wanted(attempt)
    rungs = [rung for rung in _rungs(attempt, context) if rung.context_tokens > loaded.context_tokens]
    choice = first_safe(draft, rungs, attempt.budget)
    if choice is None:
        if holds_small_reply(loaded, need):
            return None
        choice = last_resort(draft, rungs[-1], attempt.budget, need, ceiling)
    why += (*type_reasons, reasons.grown(loaded.context_tokens, choice.shape.context_tokens))
    return _join(PlanAction.GROW, attempt, rungs[0], choice, why)


def _wanted(attempt: _Attempt) -> tuple[int, tuple[Reason, ...]]:
    """The context without any reduction by the ladder, and why it has its size."""
    need, situation, ceiling = attempt.need, attempt.situation, attempt.ceiling
    unknown = reasons.unknown_train_context(situation.facts)
    if need.context_tokens is not None:
        # In the engine's steps: what is planned is what is applied.
        context = min(padded_context(need.context_tokens), ceiling)
        return context, reasons.requested(need, context) + unknown
    slots_count = attempt.draft.template.slots_count
    others = headroom.other_slots(need, situation, slots_count)
    base = snap_up(needed_context(need) + others, ceiling)
    why = reasons.sized(need, others, base, ceiling, slots_count) + unknown
    context, more_reasons = _with_headroom(attempt, base)
    pressure = situation.memory.pressure
    least = min(least_context(need, slots_count, ceiling), context)
    pressed = headroom.under_pressure(context, least, pressure)
    if pressed < context:
        more_reasons += (reasons_memory.pressed(situation.memory, context, pressed),)
    return pressed, why + more_reasons


def _with_headroom(attempt: _Attempt, base_tokens: int) -> tuple[int, tuple[Reason, ...]]:
    """A larger context where one is expected to be needed and safe without anybody leaving."""
    wanted = snap_up(headroom.expected_context(attempt.need, attempt.situation), attempt.ceiling)
    if wanted <= base_tokens:
        return base_tokens, ()
    alone = replace(attempt.budget, evictable_bytes=0)
    safe = safe_context(attempt.draft, attempt.types, alone, wanted)
    context = max(base_tokens, min(wanted, safe))
    if context == base_tokens:
        return base_tokens, ()
    return context, (headroom.told(attempt.need, attempt.situation, context, unsafe=safe < wanted),)


def _rungs(attempt: _Attempt, context_tokens: int) -> list[Rung]:
    need, situation, types = attempt.need, attempt.situation, attempt.types
    smaller = smaller_types(types, situation.facts, situation.defaults)
    if need.context_tokens is not None:
        return unchanged_context(context_tokens, types, smaller)
    least = least_context(need, attempt.draft.template.slots_count, attempt.ceiling)
    return ladder(context_tokens, min(least, context_tokens), types, smaller)


def _join(action: PlanAction, attempt: _Attempt, full: Rung, choice: Choice, why: tuple[Reason, ...]) -> Plan:
    """The plan of a choice: who leaves, what the host prompt cache gets, what it all takes."""
    situation, budget = attempt.situation, attempt.budget
    memory, required = situation.memory, choice.footprint.total_bytes
    missing = required - (budget.free_bytes - budget.margin_bytes)
    leaving = _leaving(memory.residents, missing)
    evicted_bytes = sum(resident.freed_bytes for resident in leaving)
    cache_bytes = host_prompt_cache_bytes(
        situation.defaults.prompt_cache_share, evicted_bytes - missing, memory.pressure
    )
    shape = replace(choice.shape, host_prompt_cache_bytes=cache_bytes)
    footprint = replace(choice.footprint, host_prompt_cache_bytes=cache_bytes)
    safe = safe_context(attempt.draft, choice.rung.types, budget, attempt.ceiling)
    fit = fit_of(required, budget, safe)
    available = memory.reading.available_bytes
    after = available + situation.loaded_freed_bytes + evicted_bytes - required
    why += (
        *_given_up(attempt, full, choice),
        *reasons_memory.states(situation.facts, shape),
        *reasons_memory.taken(required, budget, choice.fit_class),
        *reasons_memory.evicted(leaving),
        *reasons_memory.prompt_cache(cache_bytes),
        *_batches(situation, shape),
    )
    return Plan(
        action=action,
        shape=shape,
        footprint=footprint,
        reasons=why,
        fit=fit,
        evictions=tuple(resident.model_id for resident in leaving),
        reduction_level=choice.rung.level,
        available_before_bytes=available,
        available_after_bytes=max(after, 0),
        pressure=memory.pressure,
    )


def _given_up(attempt: _Attempt, full: Rung, choice: Choice) -> tuple[Reason, ...]:
    if choice.rung is full:
        return ()
    whole = attempt.draft.shape(full.context_tokens, full.types)
    level, usable_bytes = choice.rung.level, attempt.budget.usable_bytes
    return (reasons_memory.reduced(level, SMALLEST_LEVEL, whole, choice.shape, usable_bytes),)


def _batches(situation: Situation, shape: LoadShape) -> tuple[Reason, ...]:
    """A configured batch needs no reason."""
    if situation.defaults.batch_tokens:
        return ()
    speed = prefill_tokens_per_second(situation)
    return (reasons.batches(shape, speed, measured=situation.learned.prefill_tokens_per_second > 0),)


def _leaving(residents: tuple[Resident, ...], missing_bytes: int) -> tuple[Resident, ...]:
    chosen = evictions(residents, missing_bytes)
    by_id = {resident.model_id: resident for resident in residents}
    return tuple(by_id[model_id] for model_id in chosen)
