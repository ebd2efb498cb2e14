"""Loads and growths: the context that is wanted, the rung of it that memory allows, and who leaves for it.

``plan`` calls it for whatever the loaded shape does not hold. Invariant: what is planned fits with its
margin, or the request allows swapping and the reasons say so; the host prompt cache takes nothing that
anything else needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotuned.core.memory import PressureTier, Resident
from autotuned.core.plan import LoadShape, Need, Plan, PlanAction, Reason
from autotuned.policy import headroom, reasons, reasons_memory
from autotuned.policy.batch import prefill_tokens_per_second
from autotuned.policy.cache_types import (
    CacheTypes,
    first_types,
    grown_types,
    smaller_types,
    whole_types,
)
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
from autotuned.policy.pressure import ENTERED_AT_PERCENT
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
    can_stay = holds_small_reply(loaded, need)
    if can_stay and _context_alone(attempt) <= loaded.context_tokens:
        return None
    context, why = _wanted(attempt)
    rungs = [rung for rung in _rungs(attempt, context) if rung.context_tokens > loaded.context_tokens]
    choice = first_safe(draft, rungs, attempt.budget)
    if choice is None:
        if can_stay:
            return None
        choice = last_resort(draft, rungs[-1], attempt.budget, need, ceiling)
    why += (*type_reasons, reasons.grown(loaded.context_tokens, choice.shape.context_tokens))
    return _join(PlanAction.GROW, attempt, rungs[0], choice, why)


def _context_alone(attempt: _Attempt) -> int:
    """The context that this request alone would get if nothing were loaded; 0 where none is safe.

    A loaded one that is as large stays: what was reduced for want of memory is not loaded again at
    once, nor because its KV types have since become smaller.
    """
    first = replace(attempt, types=whole_types(attempt.situation))
    rungs = _rungs(first, _pressed(first, _base(first)))
    choice = first_safe(first.draft, rungs, first.budget)
    return 0 if choice is None else choice.shape.context_tokens


def _wanted(attempt: _Attempt) -> tuple[int, tuple[Reason, ...]]:
    """The context without any reduction by the ladder, and why it has its size."""
    need, situation, ceiling = attempt.need, attempt.situation, attempt.ceiling
    unknown = reasons.unknown_train_context(situation.facts)
    if need.context_tokens is not None:
        # In the engine's steps: what is planned is what is applied.
        context = min(padded_context(need.context_tokens), ceiling)
        return context, reasons.requested(need, context) + unknown
    base = _base(attempt)
    why = reasons.sized(need, _others(attempt), base, ceiling, attempt.draft.template.slots_count)
    context, more_reasons = _with_headroom(attempt, base)
    pressed = _pressed(attempt, context)
    if pressed < context:
        more_reasons += (reasons_memory.pressed(situation.memory, context, pressed),)
    return pressed, why + unknown + more_reasons


def _base(attempt: _Attempt) -> int:
    """The bucket that holds the request and the slots beside it."""
    return snap_up(needed_context(attempt.need) + _others(attempt), attempt.ceiling)


def _others(attempt: _Attempt) -> int:
    return headroom.other_slots(attempt.need, attempt.situation, attempt.draft.template.slots_count)


def _pressed(attempt: _Attempt, context_tokens: int) -> int:
    """What pressure leaves of a context."""
    slots_count = attempt.draft.template.slots_count
    least = min(least_context(attempt.need, slots_count, attempt.ceiling), context_tokens)
    return headroom.under_pressure(context_tokens, least, attempt.situation.memory.pressure)


def _with_headroom(attempt: _Attempt, base_tokens: int) -> tuple[int, tuple[Reason, ...]]:
    """A larger context where one is expected to be needed, and safe without anybody leaving.

    It must not bring about the pressure under which it would shrink again.
    """
    wanted = snap_up(headroom.expected_context(attempt.need, attempt.situation), attempt.ceiling)
    if wanted <= base_tokens:
        return base_tokens, ()
    budget, reading = attempt.budget, attempt.situation.memory.reading
    calm_bytes = reading.total_bytes * (100 - ENTERED_AT_PERCENT[PressureTier.ELEVATED]) // 100
    alone = replace(budget, evictable_bytes=0, margin_bytes=max(budget.margin_bytes, calm_bytes))
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
    promised = situation.loaded_promised_bytes + sum(resident.promised_bytes for resident in leaving)
    after = available + situation.loaded_freed_bytes + evicted_bytes - promised - required
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
