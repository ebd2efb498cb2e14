"""Joins what a request needs, what a model can, what is loaded and what memory allows into one plan.

``services.models`` calls it whenever it grants a model, and carries the plan out. A loaded shape is
pinned: it is kept while it suffices, and when it does not, its context grows; it shrinks only while
nobody uses it and memory is short.
Invariant: a plan's context holds the prompt and room for a reply or is all that the model or the
request allows; what memory cannot give is refused or told, never silently cut from the prompt.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.chat import ProfileName
from autotuned.core.errors import ContextTooLong, FieldInvalid
from autotuned.core.model import ModelFacts
from autotuned.core.plan import Fit, LoadShape, Need, Plan, PlanAction, Reason
from autotuned.policy import reasons, reasons_memory
from autotuned.policy.allocation import grow, load
from autotuned.policy.cache_types import CacheTypes, first_types
from autotuned.policy.draft import first_draft, next_draft
from autotuned.policy.fit import budget_of, fit_of, safe_context
from autotuned.policy.footprint import estimate_footprint
from autotuned.policy.kv import padded_context
from autotuned.policy.profiles import PROFILES
from autotuned.policy.shrinking import shrink
from autotuned.policy.situation import ShapeDefaults, Situation
from autotuned.policy.sizing import ASSUMED_TRAIN_CONTEXT_TOKENS, needed_context, snap_up, suffices

__all__ = ["ShapeDefaults", "Situation", "plan", "plan_optimistically", "refit", "shrink"]


def plan(need: Need, situation: Situation) -> Plan:
    """Decides whether the loaded shape is kept, grown, or a first one loaded.

    Raises ``ContextTooLong`` for an exact prompt that leaves no room for a single reply token,
    ``FieldInvalid`` for a requested context that the model does not have, and ``WouldSwap`` for a load
    that memory cannot hold. An estimated prompt is never refused for its length: it is planned with
    the largest context, and the engine's own count decides.
    """
    loaded = situation.loaded
    ceiling = _largest_context(situation.facts, need, loaded)
    _refuse_impossible(need, ceiling)
    if loaded is None:
        return load(need, situation, ceiling)
    if suffices(loaded, need) or loaded.context_tokens >= ceiling:
        return _keep(situation, loaded, reasons.kept(need, loaded.context_tokens, ceiling))
    grown = grow(need, situation, loaded, ceiling)
    if grown is not None:
        return grown
    kept = reasons.kept(need, loaded.context_tokens, ceiling)
    return _keep(situation, loaded, (*kept, reasons_memory.KEPT_FOR_MEMORY))


def plan_optimistically(need: Need, situation: Situation) -> Plan:
    """``plan`` for a request that nobody has counted. Raises like it.

    A loaded model is asked to run and not to count: an estimated prompt is taken to fit, since the
    engine's first progress tells the exact number before anything is computed. Where the reply alone
    does not fit, the estimate counts, so that one growth suffices.
    """
    loaded = situation.loaded
    if loaded is not None and not need.prompt_is_exact and need.context_tokens is None:
        hopeful = replace(need, prompt_tokens=0)
        ceiling = _largest_context(situation.facts, need, loaded)
        if suffices(loaded, hopeful) or loaded.context_tokens >= ceiling:
            return _keep(situation, loaded, reasons.kept(hopeful, loaded.context_tokens, ceiling))
    return plan(need, situation)


def refit(situation: Situation, profile: ProfileName = ProfileName.BALANCED) -> Fit:
    """How the loaded shape, or else one for a first message of the profile, would fit."""
    need = Need(
        prompt_tokens=0,
        prompt_is_exact=False,
        reply_tokens=PROFILES[profile].reply_tokens,
        profile=profile,
    )
    ceiling = _largest_context(situation.facts, need, situation.loaded)
    types, _ = first_types(need, situation)
    draft = first_draft(situation, types)
    shape = situation.loaded
    if shape is not None:
        types = CacheTypes(shape.key_cache_type, shape.value_cache_type)
        draft = next_draft(situation, shape)
    budget = budget_of(situation)
    safe = safe_context(draft, types, budget, ceiling)
    if shape is None:
        shape = draft.shape(snap_up(needed_context(need), ceiling), types)
    # As at a load, the host prompt cache is not counted: it takes only what nothing else needs.
    required = draft.footprint(replace(shape, host_prompt_cache_bytes=0)).total_bytes
    return fit_of(required, budget, safe)


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
        raise ContextTooLong(
            prompt_tokens=need.prompt_tokens,
            context_tokens=context,
            possible_context_tokens=ceiling if need.prompt_tokens < ceiling else 0,
        )


def _keep(situation: Situation, loaded: LoadShape, why: tuple[Reason, ...]) -> Plan:
    """The loaded shape as it is: the way of most requests, so nothing is computed again."""
    footprint = situation.loaded_footprint
    if footprint is None:
        footprint = estimate_footprint(situation.facts, loaded, situation.learned)
    return Plan(
        action=PlanAction.REUSE,
        shape=loaded,
        footprint=footprint,
        reasons=why,
        pressure=situation.memory.pressure,
    )
