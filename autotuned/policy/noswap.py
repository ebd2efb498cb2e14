"""The ladder of what a load gives up, rung by rung, so that it fits into memory without swapping.

``plan`` steps down it. Invariant: each rung takes less than the one above, none is without room for the
prompt and a small reply, and under ``SwapPolicy.NEVER`` nothing is planned that leaves less than the
margin free.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotuned.core.errors import WouldSwap
from autotuned.core.memory import Footprint, SwapPolicy
from autotuned.core.plan import FitClass, LoadShape, Need
from autotuned.policy import reasons_memory
from autotuned.policy.cache_types import CacheTypes
from autotuned.policy.draft import Draft
from autotuned.policy.fit import Budget, classify, possible_context, safe_context
from autotuned.policy.sizing import snap_down

SMALLEST_LEVEL = 5
_QUARTERS_BY_LEVEL = (4, 3, 2, 2, 1, 0)
_FIRST_SMALLER_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Rung:
    """One thing to try. ``level`` 0 gave nothing up; from 3 on the KV types are the smaller ones."""

    level: int
    context_tokens: int
    types: CacheTypes


@dataclass(frozen=True, slots=True)
class Choice:
    """The rung that was taken, as a shape with its bytes. Its host prompt cache is empty."""

    rung: Rung
    shape: LoadShape
    footprint: Footprint
    fit_class: FitClass


def ladder(context_tokens: int, least_tokens: int, types: CacheTypes, smaller: CacheTypes) -> list[Rung]:
    """All, 75 %, half, half with smaller types, a quarter with them, and the least with them.

    Contexts snap down to buckets, but not below ``least_tokens``; rungs that save nothing are left out.
    """
    rungs: list[Rung] = []
    for level, quarters in enumerate(_QUARTERS_BY_LEVEL):
        wanted = context_tokens * quarters // 4
        context = context_tokens if level == 0 else snap_down(wanted, least_tokens)
        rung_types = types if level < _FIRST_SMALLER_LEVEL else smaller
        before = rungs[-1] if rungs else None
        if before is None or (context, rung_types) != (before.context_tokens, before.types):
            rungs.append(Rung(level, context, rung_types))
    return rungs


def unchanged_context(context_tokens: int, types: CacheTypes, smaller: CacheTypes) -> list[Rung]:
    """The ladder of a context that a request asks for: only its types can give way."""
    asked = Rung(0, context_tokens, types)
    if types == smaller:
        return [asked]
    return [asked, Rung(_FIRST_SMALLER_LEVEL, context_tokens, smaller)]


def first_safe(draft: Draft, rungs: list[Rung], budget: Budget) -> Choice | None:
    """The highest rung that leaves the margin free, counting what idle models would free."""
    for rung in rungs:
        choice = _choose(draft, rung, budget)
        if choice.fit_class is FitClass.SAFE:
            return choice
    return None


def last_resort(draft: Draft, rung: Rung, budget: Budget, need: Need, ceiling: int) -> Choice:
    """The lowest rung, where swapping is allowed and memory and swap hold it.

    Raises ``WouldSwap`` with what is required, what can be had, and the largest context that would fit.
    """
    choice = _choose(draft, rung, budget)
    if need.swap_policy is SwapPolicy.ALLOW and choice.fit_class is not FitClass.OOM:
        return choice
    search = safe_context if need.swap_policy is SwapPolicy.NEVER else possible_context
    fitting = search(draft, rung.types, budget, ceiling)
    required = choice.footprint.total_bytes
    raise WouldSwap(
        reasons_memory.would_swap(need, rung.context_tokens, required, budget, fitting),
        required_bytes=required,
        available_bytes=reasons_memory.limit_bytes(need.swap_policy, budget),
        fitting_context_tokens=fitting,
    )


def _choose(draft: Draft, rung: Rung, budget: Budget) -> Choice:
    shape = draft.shape(rung.context_tokens, rung.types)
    footprint = draft.footprint(shape)
    return Choice(rung, shape, footprint, classify(footprint.total_bytes, budget))
