from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from autotuned.core.errors import ContextTooLong, FieldInvalid, WouldSwap
from autotuned.core.memory import MemoryView, PressureTier, Resident, SwapPolicy
from autotuned.core.plan import FitClass, KvCacheType, PlanAction
from autotuned.policy.cache_types import CacheTypes
from autotuned.policy.draft import first_draft
from autotuned.policy.fit import budget_of
from autotuned.policy.noswap import ladder
from autotuned.policy.plan import plan
from autotuned.policy.sizing import BUCKETS, least_reply
from tests.examples import GEMMA3_12B, POCKET, QWEN3_8B, counted, short_memory, situation
from tests.strategies import needs, situations

GIB, MIB = 1 << 30, 1 << 20
F16 = CacheTypes(KvCacheType.F16, KvCacheType.F16)
Q8_0 = CacheTypes(KvCacheType.Q8_0, KvCacheType.Q8_0)
MARGIN_BYTES = 1536 * MIB


def rungs(*arguments):
    return [(rung.level, rung.context_tokens, rung.types) for rung in ladder(*arguments)]


def bytes_of(facts, context_tokens, types):
    draft = first_draft(situation(facts), types)
    return draft.footprint(draft.shape(context_tokens, types)).total_bytes


def having(available_bytes, **more):
    """A machine of 64 GiB; what is available beyond the margin is for the model."""
    memory = MemoryView(
        reading=short_memory(available_bytes + MARGIN_BYTES, total_bytes=64 * GIB),
        pressure=PressureTier.NORMAL,
    )
    return replace(memory, **more)


def never(prompt_tokens, reply_tokens=1024, context_tokens=None):
    need = counted(prompt_tokens, reply_tokens, context_tokens)
    return replace(need, swap_policy=SwapPolicy.NEVER)


def test_the_levels():
    assert rungs(32_768, 512, F16, Q8_0) == [
        (0, 32_768, F16),
        (1, 16_384, F16),
        (3, 16_384, Q8_0),
        (4, 8192, Q8_0),
        (5, 512, Q8_0),
    ]
    assert rungs(8192, 512, F16, Q8_0) == [
        (0, 8192, F16),
        (1, 6144, F16),
        (2, 4096, F16),
        (3, 4096, Q8_0),
        (4, 2048, Q8_0),
        (5, 512, Q8_0),
    ]


def test_levels_that_cannot_hold_the_prompt_hold_just_enough():
    assert rungs(8192, 5120, F16, Q8_0) == [
        (0, 8192, F16),
        (1, 6144, F16),
        (2, 5120, F16),
        (3, 5120, Q8_0),
    ]


def test_types_that_cannot_become_smaller_add_no_level():
    assert rungs(8192, 4096, Q8_0, Q8_0) == [(0, 8192, Q8_0), (1, 6144, Q8_0), (2, 4096, Q8_0)]


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20), st.sampled_from([F16, Q8_0]))
def test_each_level_takes_less_and_none_cuts_the_prompt(one, other, types):
    least, full = sorted((one, other))
    steps = ladder(full, least, types, Q8_0)
    assert steps[0].context_tokens == full
    assert steps[0].types == types
    assert [step.level for step in steps] == sorted({step.level for step in steps})
    for above, below in pairwise(steps):
        assert least <= below.context_tokens <= above.context_tokens
        assert below.context_tokens in BUCKETS or below.context_tokens == least
        assert (below.context_tokens, below.types) != (above.context_tokens, above.types)
        assert below.types in (above.types, Q8_0)


@pytest.mark.parametrize("facts", [QWEN3_8B, GEMMA3_12B])
@pytest.mark.parametrize(
    ("level", "context", "types"),
    [(0, 6144, F16), (1, 4096, F16), (2, 3584, F16), (3, 3584, Q8_0)],
)
def test_the_first_level_that_fits_is_taken(facts, level, context, types):
    exactly = having(bytes_of(facts, context, types))
    decided = plan(never(3000), situation(facts, memory=exactly))
    assert (decided.reduction_level, decided.shape.context_tokens) == (level, context)
    assert decided.shape.key_cache_type is types.key
    assert decided.fit.fit_class is FitClass.SAFE
    assert decided.shape.host_prompt_cache_bytes == 0


def test_a_byte_less_is_refused_with_both_sides_and_what_would_fit():
    required = bytes_of(QWEN3_8B, 3584, Q8_0)
    with pytest.raises(WouldSwap) as refused:
        plan(never(3000), situation(QWEN3_8B, memory=having(required - 1)))
    assert refused.value.metadata == {
        "requiredBytes": str(required),
        "availableBytes": str(required - 1),
        "fittingContextTokens": "3072",
    }


@pytest.mark.parametrize("available_bytes", [0, 1, GIB, MARGIN_BYTES])
def test_no_more_than_the_margin_is_nothing_to_allocate_from(available_bytes):
    memory = having(available_bytes - MARGIN_BYTES)
    with pytest.raises(WouldSwap) as refused:
        plan(never(15), situation(POCKET, memory=memory))
    assert refused.value.metadata["availableBytes"] == "0"
    assert refused.value.metadata["fittingContextTokens"] == "0"


def test_the_weights_count():
    for facts in (QWEN3_8B, GEMMA3_12B):
        with pytest.raises(WouldSwap):
            plan(never(15), situation(facts, memory=having(facts.weights_bytes)))


def test_level_0_leaves_a_quantised_cache_as_it_is():
    loaded = replace(plan(counted(15), situation(QWEN3_8B)).shape, key_cache_type=KvCacheType.Q8_0)
    grown = plan(never(3000), situation(QWEN3_8B, loaded))
    assert (grown.action, grown.reduction_level) == (PlanAction.GROW, 0)
    assert grown.shape.key_cache_type is KvCacheType.Q8_0


def test_idle_models_leave_before_anything_is_reduced():
    idle = Resident(model_id="idle", freed_bytes=4 * GIB, is_busy=False, last_used_at=1)
    busy = Resident(model_id="busy", freed_bytes=64 * GIB, is_busy=True, last_used_at=0)
    required = bytes_of(QWEN3_8B, 6144, F16)
    short = having(required - 4 * GIB, residents=(busy, idle))
    decided = plan(never(3000), situation(QWEN3_8B, memory=short))
    assert (decided.reduction_level, decided.evictions) == (0, ("idle",))
    enough = having(required, residents=(busy, idle))
    assert plan(never(3000), situation(QWEN3_8B, memory=enough)).evictions == ()


def test_what_other_loads_have_reserved_is_not_there():
    required = bytes_of(QWEN3_8B, 6144, F16)
    memory = having(required + GIB, reserved_bytes=GIB + 1)
    assert plan(never(3000), situation(QWEN3_8B, memory=memory)).reduction_level == 1


def test_a_requested_context_is_not_reduced_but_its_types_may_be():
    need = never(15, context_tokens=8192)
    memory = having(bytes_of(QWEN3_8B, 8192, Q8_0))
    decided = plan(need, situation(QWEN3_8B, memory=memory))
    assert decided.shape.context_tokens == 8192
    assert decided.shape.key_cache_type is KvCacheType.Q8_0
    shorter = replace(memory, reading=short_memory(memory.reading.available_bytes - 1, total_bytes=64 * GIB))
    with pytest.raises(WouldSwap) as refused:
        plan(need, situation(QWEN3_8B, memory=shorter))
    assert refused.value.metadata["fittingContextTokens"] == "6144"


def test_where_swapping_is_allowed_the_smallest_level_may_swap():
    required = bytes_of(QWEN3_8B, 3584, Q8_0)
    reading = short_memory(required - GIB, total_bytes=64 * GIB, swap_free_bytes=GIB)
    memory = MemoryView(reading=reading, pressure=PressureTier.NORMAL)
    decided = plan(counted(3000), situation(QWEN3_8B, memory=memory))
    assert decided.reduction_level == 3
    assert decided.shape.context_tokens == 3584
    assert decided.fit.fit_class is FitClass.SWAP_RISK
    assert "may-swap" in {reason.code for reason in decided.reasons}
    with pytest.raises(WouldSwap):
        plan(never(3000), situation(QWEN3_8B, memory=memory))


def test_what_would_be_killed_is_refused_though_swapping_is_allowed():
    required = bytes_of(QWEN3_8B, 3584, Q8_0)
    reading = short_memory(required - GIB, total_bytes=64 * GIB, swap_free_bytes=GIB - 1)
    memory = MemoryView(reading=reading, pressure=PressureTier.NORMAL)
    with pytest.raises(WouldSwap) as refused:
        plan(counted(3000), situation(QWEN3_8B, memory=memory))
    assert refused.value.metadata["fittingContextTokens"] == "3072"


def test_a_loaded_context_stays_where_memory_has_no_larger_one():
    loaded = plan(counted(15), situation(QWEN3_8B)).shape
    full = situation(QWEN3_8B, loaded, memory=having(-MARGIN_BYTES))
    kept = plan(never(1000), full)
    assert kept.action is PlanAction.REUSE
    assert kept.reasons[-1].code == "kept-for-memory"
    with pytest.raises(WouldSwap):
        plan(never(1400), full)


@given(needs(contexts=st.none()), situations())
def test_never_means_that_the_margin_stays_free(need, state):
    need = replace(need, swap_policy=SwapPolicy.NEVER)
    try:
        decided = plan(need, state)
    except (ContextTooLong, FieldInvalid):
        reject()
    except WouldSwap as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert int(refused.metadata["requiredBytes"]) > int(refused.metadata["availableBytes"])
        return
    if decided.action is PlanAction.REUSE:
        return
    budget = budget_of(state)
    leaving = [model for model in state.memory.residents if model.model_id in decided.evictions]
    freed_bytes = budget.free_bytes + sum(model.freed_bytes for model in leaving)
    assert decided.footprint.total_bytes <= freed_bytes - budget.margin_bytes
    assert decided.fit.fit_class is FitClass.SAFE
    assert not any(model.is_busy for model in leaving)
    for model in leaving:
        remaining = freed_bytes - model.freed_bytes - budget.margin_bytes
        assert decided.fit.required_bytes > remaining


@given(needs(), situations())
def test_memory_never_cuts_the_prompt(need, state):
    try:
        decided = plan(need, state)
    except (ContextTooLong, FieldInvalid, WouldSwap):
        reject()
    largest = state.facts.train_context_tokens or 4096
    context = decided.shape.context_tokens
    if need.context_tokens is None:
        assert context >= min(need.prompt_tokens + least_reply(need), largest)
    else:
        assert context >= need.context_tokens


@given(needs(), situations())
def test_allowing_to_swap_refuses_nothing_that_never_would_take(need, state):
    try:
        strict = plan(replace(need, swap_policy=SwapPolicy.NEVER), state)
    except (ContextTooLong, FieldInvalid, WouldSwap):
        reject()
    lenient = plan(replace(need, swap_policy=SwapPolicy.ALLOW), state)
    assert lenient.shape == strict.shape
