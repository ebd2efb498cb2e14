from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.chat import ProfileName
from autotuned.core.memory import MemoryView, PressureTier, Resident
from autotuned.core.plan import FitClass, KvCacheType
from autotuned.policy.cache_types import CacheTypes
from autotuned.policy.draft import first_draft
from autotuned.policy.fit import Budget, budget_of, classify, possible_context, safe_context
from autotuned.policy.plan import plan, refit
from autotuned.policy.sizing import buckets_within
from tests.examples import DEFAULTS, GEMMA3_12B, POCKET, QWEN3_8B, counted, short_memory, situation
from tests.strategies import memory_views, situations

GIB, MIB = 1 << 30, 1 << 20
F16 = CacheTypes(KvCacheType.F16, KvCacheType.F16)
Q8_0 = CacheTypes(KvCacheType.Q8_0, KvCacheType.Q8_0)
ORDER = list(FitClass)
sizes = st.integers(0, 2 << 40)


def view(available_bytes, *, total_bytes=64 * GIB, residents=(), reserved_bytes=0, swap_free_bytes=0):
    return MemoryView(
        reading=short_memory(available_bytes, total_bytes=total_bytes, swap_free_bytes=swap_free_bytes),
        pressure=PressureTier.NORMAL,
        residents=residents,
        reserved_bytes=reserved_bytes,
    )


def budget(memory, freed_bytes=0):
    return budget_of(replace(situation(memory=memory), loaded_freed_bytes=freed_bytes))


def test_what_can_be_had():
    residents = (
        Resident(model_id="idle", freed_bytes=2 * GIB, is_busy=False, last_used_at=1),
        Resident(model_id="busy", freed_bytes=8 * GIB, is_busy=True, last_used_at=1),
    )
    had = budget(view(10 * GIB, residents=residents, reserved_bytes=3 * GIB, swap_free_bytes=GIB), 4 * GIB)
    assert (had.free_bytes, had.evictable_bytes, had.swap_bytes) == (11 * GIB, 2 * GIB, GIB)
    assert had.available_bytes == 13 * GIB
    assert had.usable_bytes == 13 * GIB - 1536 * MIB


def test_the_margin_is_at_most_a_sixth_and_a_twentieth_is_the_systems():
    small = budget(view(2 * GIB, total_bytes=3 * GIB))
    assert small.margin_bytes == 512 * MIB
    assert small.capacity_bytes == 3 * GIB - 3 * GIB // 20


def test_what_a_mac_wires_bounds_a_model():
    memory = view(60 * GIB)
    wired = replace(memory, reading=replace(memory.reading, wired_limit_bytes=48 * GIB))
    assert budget(wired).capacity_bytes == 48 * GIB


@pytest.mark.parametrize("available_bytes", [0, 1, 1536 * MIB - 1, 1536 * MIB])
def test_nothing_can_be_used_where_no_more_than_the_margin_is_left(available_bytes):
    assert budget(view(available_bytes)).usable_bytes == 0


@pytest.mark.parametrize(
    ("required_bytes", "fit_class"),
    [
        (0, FitClass.SAFE),
        (8704 * MIB, FitClass.SAFE),
        (8704 * MIB + 1, FitClass.MARGINAL),
        (10 * GIB, FitClass.MARGINAL),
        (10 * GIB + 1, FitClass.SWAP_RISK),
        (12 * GIB, FitClass.SWAP_RISK),
        (12 * GIB + 1, FitClass.OOM),
    ],
)
def test_classes_by_example(required_bytes, fit_class):
    assert classify(required_bytes, budget(view(10 * GIB, swap_free_bytes=2 * GIB))) is fit_class


def test_more_than_the_machine_has_is_never_swapped():
    had = budget(view(10 * GIB, total_bytes=16 * GIB, swap_free_bytes=100 * GIB))
    assert classify(15 * GIB, had) is FitClass.SWAP_RISK
    assert classify(16 * GIB, had) is FitClass.OOM


@given(memory_views(), sizes, sizes)
def test_a_larger_load_never_fits_better(memory, one, other):
    had = budget(memory)
    smaller, larger = sorted((one, other))
    assert ORDER.index(classify(smaller, had)) <= ORDER.index(classify(larger, had))


@given(memory_views(), sizes, sizes)
def test_more_free_memory_never_makes_a_load_fit_worse(memory, required_bytes, more):
    reading = memory.reading
    richer = replace(memory, reading=replace(reading, available_bytes=reading.available_bytes + more))
    before, after = budget(memory), budget(richer)
    assert ORDER.index(classify(required_bytes, after)) <= ORDER.index(classify(required_bytes, before))


@given(memory_views(), sizes, sizes)
def test_a_larger_machine_never_makes_a_load_fit_worse(memory, required_bytes, more):
    reading = memory.reading
    larger = replace(
        reading,
        total_bytes=reading.total_bytes + more,
        available_bytes=reading.available_bytes + more,
    )
    before, after = budget(memory), budget(replace(memory, reading=larger))
    assert ORDER.index(classify(required_bytes, after)) <= ORDER.index(classify(required_bytes, before))


@given(situations(loaded=st.none()), st.sampled_from([F16, Q8_0]))
def test_the_safe_context_is_the_largest_that_leaves_the_margin(state, types):
    draft, had = first_draft(state, types), budget_of(state)
    ceiling = state.facts.train_context_tokens or 4096
    safe = safe_context(draft, types, had, ceiling)
    classes = {
        context: classify(draft.footprint(draft.shape(context, types)).total_bytes, had)
        for context in buckets_within(ceiling)
    }
    fitting = [context for context, fit_class in classes.items() if fit_class is FitClass.SAFE]
    assert safe == max(fitting, default=0)
    assert fitting == [context for context in classes if context <= safe]
    possible = [context for context, fit_class in classes.items() if fit_class is not FitClass.OOM]
    assert possible_context(draft, types, had, ceiling) == max(possible, default=0)


@given(st.integers(0, 64), st.integers(0, 64))
def test_more_memory_never_lowers_the_safe_context(one, other):
    less, more = (refit(situation(QWEN3_8B, memory=view(gib * GIB))) for gib in sorted((one, other)))
    assert less.safe_context_tokens <= more.safe_context_tokens
    assert ORDER.index(more.fit_class) <= ORDER.index(less.fit_class)


def test_smaller_types_hold_a_larger_safe_context():
    draft = first_draft(situation(GEMMA3_12B), F16)
    had = Budget(
        free_bytes=draft.footprint(draft.shape(8192, F16)).total_bytes,
        evictable_bytes=0,
        margin_bytes=0,
        capacity_bytes=1 << 50,
        swap_bytes=0,
    )
    assert safe_context(draft, F16, had, 131_072) == 8192
    assert safe_context(draft, Q8_0, had, 131_072) > 8192


def test_a_model_that_is_not_loaded_is_fitted_for_a_first_message():
    fit = refit(situation())
    first = plan(counted(0), situation())
    assert fit == first.fit
    assert refit(situation(), ProfileName.FAST).required_bytes < fit.required_bytes


def test_a_loaded_model_is_fitted_as_it_is():
    shape = replace(plan(counted(15), situation()).shape, context_tokens=8192)
    loaded = situation(POCKET, shape, defaults=replace(DEFAULTS, slots_count=1))
    assert refit(loaded).required_bytes > refit(situation()).required_bytes
