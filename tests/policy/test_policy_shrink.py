from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotuned.core.memory import MemoryView, PressureTier
from autotuned.core.plan import KvCacheType, PlanAction
from autotuned.policy.kv import state_bytes
from autotuned.policy.plan import plan, shrink
from tests.examples import DEFAULTS, PLENTY, POCKET, QWEN3_8B, counted, situation
from tests.strategies import BOUNDLESS, load_shapes, pressures, situations

MIB = 1 << 20
LARGE = plan(counted(15, context_tokens=32_768), situation(QWEN3_8B)).shape
KEPT_TYPES = (KvCacheType.F16, KvCacheType.F16)


def idle(pressure, loaded=LARGE, facts=QWEN3_8B, **more):
    memory = MemoryView(reading=PLENTY, pressure=pressure)
    return situation(facts, loaded, memory=memory, **more)


def types_of(shape):
    return shape.key_cache_type, shape.value_cache_type


@pytest.mark.parametrize("pressure", [PressureTier.NORMAL, PressureTier.ELEVATED])
def test_below_high_pressure_nothing_shrinks(pressure):
    assert shrink(idle(pressure), 0) is None


def test_what_is_not_loaded_does_not_shrink():
    assert shrink(idle(PressureTier.CRITICAL, loaded=None), 0) is None


@pytest.mark.parametrize("pressure", [PressureTier.HIGH, PressureTier.CRITICAL])
@pytest.mark.parametrize(("kept_tokens", "context"), [(0, 512), (3000, 4096), (12_000, 12_288)])
def test_the_context_shrinks_to_what_its_conversation_needs_and_keeps_its_state(
    pressure, kept_tokens, context
):
    decided = shrink(idle(pressure), kept_tokens)
    assert decided.action is PlanAction.SHRINK
    assert decided.shape.context_tokens == context
    assert types_of(decided.shape) == KEPT_TYPES
    assert decided.shape.host_prompt_cache_bytes == 0
    assert decided.pressure is pressure
    freed = state_bytes(QWEN3_8B, LARGE) - state_bytes(QWEN3_8B, decided.shape)
    assert decided.available_after_bytes - decided.available_before_bytes == freed


def test_only_critical_pressure_quantises_what_a_smaller_context_cannot_free():
    assert shrink(idle(PressureTier.HIGH), 32_000) is None
    decided = shrink(idle(PressureTier.CRITICAL), 32_000)
    assert decided.shape.context_tokens == 32_768
    assert types_of(decided.shape) == (KvCacheType.Q8_0, KvCacheType.Q8_0)
    configured = replace(DEFAULTS, kv_cache="f16")
    assert shrink(idle(PressureTier.CRITICAL, defaults=configured), 32_000) is None


def test_what_is_not_worth_a_reload_stays():
    pocket = replace(LARGE, context_tokens=8192)
    assert shrink(idle(PressureTier.CRITICAL, loaded=pocket, facts=POCKET), 0) is None


@given(situations(loaded=load_shapes()), pressures, st.integers(0, 1 << 18))
def test_what_shrinks_frees_a_worthwhile_part_and_keeps_the_conversation(state, pressure, kept_tokens):
    assume(kept_tokens <= state.loaded.context_tokens)
    state = replace(state, memory=MemoryView(reading=BOUNDLESS, pressure=pressure))
    decided = shrink(state, kept_tokens)
    if decided is None:
        return
    before, shape = state.loaded, decided.shape
    assert pressure >= PressureTier.HIGH
    assert kept_tokens <= shape.context_tokens <= before.context_tokens
    assert pressure is PressureTier.CRITICAL or types_of(shape) == types_of(before)
    freed = state_bytes(state.facts, before) - state_bytes(state.facts, shape)
    assert freed >= max(64 * MIB, state_bytes(state.facts, before) / 10)
    assert shape.micro_batch_tokens <= shape.batch_tokens <= shape.context_tokens


@given(situations(loaded=load_shapes()), pressures, st.integers(0, 1 << 18))
def test_it_comes_to_rest_after_two_steps(state, pressure, kept_tokens):
    state = replace(state, memory=MemoryView(reading=BOUNDLESS, pressure=pressure))
    for _ in range(2):
        decided = shrink(state, kept_tokens)
        if decided is not None:
            state = replace(state, loaded=decided.shape)
    assert shrink(state, kept_tokens) is None
