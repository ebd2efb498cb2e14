"""What plans say of memory, against what memory then gives: refusals, what is free afterwards, lists."""

from dataclasses import replace

from hypothesis import assume, given, reject
from hypothesis import strategies as st

import autotuned.policy.draft
import autotuned.policy.plan
from autotuned.core.errors import ContextTooLong, FieldInvalid, WouldSwap
from autotuned.core.memory import MemoryView, PressureTier, Resident, SwapPolicy
from autotuned.core.plan import KvCacheType, PlanAction
from autotuned.policy.cache_types import CacheTypes
from autotuned.policy.draft import first_draft
from autotuned.policy.footprint import estimate_footprint
from autotuned.policy.plan import plan, plan_optimistically, refit
from autotuned.policy.sizing import BUCKETS
from tests.examples import (
    DEEPSEEK_V3,
    GEMMA3_12B,
    LLAMA_3_1_8B,
    PLENTY,
    POCKET,
    QWEN3_8B,
    QWEN3_NEXT_80B,
    counted,
    estimated,
    short_memory,
    situation,
)
from tests.strategies import needs, pressures, situations

GIB = 1 << 30
BOTH_F16 = CacheTypes(KvCacheType.F16, KvCacheType.F16)
BOTH_Q8_0 = CacheTypes(KvCacheType.Q8_0, KvCacheType.Q8_0)
POCKET_8K = plan(counted(5000), situation()).shape


def planned(need, state):
    try:
        return plan(need, state)
    except (ContextTooLong, FieldInvalid, WouldSwap):
        reject()


def refusal(need, state):
    try:
        plan(need, state)
    except WouldSwap as error:
        return error
    return None


@st.composite
def tight(draw):
    """Memory that holds about a drawn context of the model, with or without its margin, and no more."""
    facts = draw(st.sampled_from([POCKET, QWEN3_8B, LLAMA_3_1_8B, GEMMA3_12B, DEEPSEEK_V3, QWEN3_NEXT_80B]))
    state = draw(situations(facts=st.just(facts), loaded=st.none()))
    types = draw(st.sampled_from([BOTH_F16, BOTH_Q8_0]))
    draft = first_draft(state, types)
    footprint = draft.footprint(draft.shape(draw(st.sampled_from(BUCKETS[:16])), types))
    available_bytes = footprint.total_bytes + draw(st.sampled_from([0, state.defaults.margin_bytes]))
    reading = replace(PLENTY, total_bytes=1 << 45, available_bytes=available_bytes, swap_free_bytes=0)
    return replace(state, memory=MemoryView(reading=reading, pressure=draw(pressures)))


@given(needs(), tight(), st.sampled_from(SwapPolicy), st.booleans())
def test_the_context_that_a_refusal_names_is_granted_when_it_is_asked_for(need, state, swap_policy, is_asked):
    tokens = state.facts.train_context_tokens * 3 // 4
    need = replace(
        need,
        prompt_tokens=0 if is_asked else tokens,
        context_tokens=tokens if is_asked else None,
        swap_policy=swap_policy,
    )
    refused = refusal(need, state)
    if refused is None:
        return
    assert refused.required_bytes > refused.available_bytes
    if not refused.fitting_context_tokens:
        return
    need = replace(need, prompt_tokens=0, context_tokens=refused.fitting_context_tokens)
    assert plan(need, state).shape.context_tokens == refused.fitting_context_tokens
    larger = replace(need, context_tokens=next(size for size in BUCKETS if size > need.context_tokens))
    assert larger.context_tokens > state.facts.train_context_tokens or refusal(larger, state) is not None


def test_a_refused_context_is_granted_at_the_size_that_the_refusal_names():
    need = replace(counted(15, context_tokens=32_768), swap_policy=SwapPolicy.NEVER)
    memory = MemoryView(reading=short_memory(8 * GIB), pressure=PressureTier.NORMAL)
    state = situation(QWEN3_8B, memory=memory)
    fitting = refusal(need, state).fitting_context_tokens
    granted = plan(replace(need, context_tokens=fitting), state)
    assert granted.shape.context_tokens == fitting == 16_384
    assert granted.footprint.total_bytes <= 8 * GIB - (1536 << 20)


@given(needs(), situations(), st.integers(0, 100), st.integers(0, 100))
def test_what_was_only_promised_is_not_freed(need, state, own_percent, others_percent):
    residents = tuple(
        replace(resident, promised_bytes=resident.freed_bytes * others_percent // 100)
        for resident in state.memory.residents
    )
    own_bytes = state.loaded_freed_bytes if state.loaded else 0
    state = replace(
        state,
        memory=replace(state.memory, residents=residents),
        loaded_freed_bytes=own_bytes,
        loaded_promised_bytes=own_bytes * own_percent // 100,
    )
    decided = planned(need, state)
    assume(decided.action is not PlanAction.REUSE)
    freed = own_bytes - state.loaded_promised_bytes
    freed += sum(
        resident.freed_bytes - resident.promised_bytes
        for resident in residents
        if resident.model_id in decided.evictions
    )
    after = decided.available_before_bytes + freed - decided.fit.required_bytes
    assert decided.available_after_bytes == max(after, 0)


def test_a_growth_of_a_model_whose_prompt_cache_is_empty_leaves_less_memory_than_before():
    cache_bytes = 2 * GIB
    taken = estimate_footprint(POCKET, replace(POCKET_8K, host_prompt_cache_bytes=0), situation().learned)
    state = replace(
        situation(replace(POCKET, train_context_tokens=131_072), POCKET_8K),
        memory=MemoryView(reading=PLENTY, pressure=PressureTier.NORMAL, reserved_bytes=cache_bytes),
        loaded_freed_bytes=taken.total_bytes + cache_bytes,
        loaded_promised_bytes=cache_bytes,
    )
    grown = plan(counted(9000), state)
    assert grown.action is PlanAction.GROW
    assert grown.available_after_bytes < grown.available_before_bytes


def test_the_cache_that_somebody_who_leaves_never_filled_is_not_freed():
    idle = Resident(
        model_id="idle", freed_bytes=6 * GIB, is_busy=False, last_used_at=1, promised_bytes=2 * GIB
    )
    memory = MemoryView(
        reading=short_memory(5 * GIB),
        pressure=PressureTier.NORMAL,
        residents=(idle,),
        reserved_bytes=2 * GIB,
    )
    decided = plan(counted(15), situation(QWEN3_8B, memory=memory))
    assert decided.evictions == ("idle",)
    assert decided.available_after_bytes == 5 * GIB + 4 * GIB - decided.fit.required_bytes


@given(needs(contexts=st.none()), situations())
def test_an_expectation_never_brings_about_the_pressure_under_which_it_would_shrink(need, state):
    calm = replace(state, memory=replace(state.memory, pressure=PressureTier.NORMAL))
    decided = planned(need, calm)
    codes = {reason.code for reason in decided.reasons}
    if decided.reduction_level == 0 and codes & {"session", "usual", "doubled"}:
        assert decided.available_after_bytes >= calm.memory.reading.total_bytes // 5
        assert decided.evictions == ()


@given(needs(), situations(), st.sampled_from(list(PressureTier)[1:]))
def test_the_host_prompt_cache_takes_nothing_under_pressure(need, state, pressure):
    decided = planned(need, replace(state, memory=replace(state.memory, pressure=pressure)))
    if decided.action is not PlanAction.REUSE:
        assert decided.shape.host_prompt_cache_bytes == 0


@given(needs(), situations())
def test_nobody_leaves_for_a_load_that_fits_beside_them(need, state):
    decided = planned(need, state)
    alone = state.memory.reading.available_bytes + state.loaded_freed_bytes - state.memory.reserved_bytes
    if decided.fit is not None and decided.fit.required_bytes + state.defaults.margin_bytes <= alone:
        assert decided.evictions == ()


def test_lists_count_a_loaded_model_without_the_cache_that_it_may_fill():
    assert POCKET_8K.host_prompt_cache_bytes > GIB
    loaded = refit(situation(POCKET, POCKET_8K))
    assert loaded.required_bytes < 64 << 20
    assert loaded.required_bytes == plan(counted(5000), situation()).fit.required_bytes


@given(needs(), situations())
def test_a_kept_shape_with_measured_bytes_is_told_without_any_estimate(need, state):
    measured = estimate_footprint(POCKET, POCKET_8K, situation().learned)
    state = replace(state, loaded=state.loaded or POCKET_8K, loaded_footprint=measured)
    estimates = []

    def counting(facts, shape, learned):
        estimates.append(shape)
        return estimate_footprint(facts, shape, learned)

    modules = (autotuned.policy.plan, autotuned.policy.draft)
    for module in modules:
        module.estimate_footprint = counting
    try:
        decided = plan_optimistically(need, state)
    except (ContextTooLong, FieldInvalid, WouldSwap):
        reject()
    finally:
        for module in modules:
            module.estimate_footprint = estimate_footprint
    if decided.action is PlanAction.REUSE:
        assert decided.footprint is measured
        assert not estimates or decided.reasons[-1].code == "kept-for-memory"


def test_an_optimistic_request_estimates_nothing(monkeypatch):
    shape = plan(counted(15), situation()).shape
    measured = estimate_footprint(POCKET, shape, situation().learned)
    estimates = []
    for name in ("plan", "draft", "shrinking"):
        monkeypatch.setattr(
            f"autotuned.policy.{name}.estimate_footprint", lambda *given: estimates.append(given)
        )
    state = replace(situation(POCKET, shape), loaded_footprint=measured)
    for need in (counted(15), estimated(0), estimated(5000)):
        assert plan_optimistically(need, state).action is PlanAction.REUSE
    assert not estimates
