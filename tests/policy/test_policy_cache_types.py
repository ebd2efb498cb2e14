"""Which types a KV cache has: those that the engine can store, decided at a load and kept after it."""

from dataclasses import replace

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from autotuned.core.chat import ProfileName
from autotuned.core.errors import ContextTooLong, FieldInvalid, WouldSwap
from autotuned.core.memory import PressureTier
from autotuned.core.model import LayerGroup
from autotuned.core.plan import KvCacheType, PlanAction
from autotuned.policy.cache_types import CacheTypes, first_types, quantised_types, smaller_types
from autotuned.policy.kv import fits_blocks, has_latent_attention
from autotuned.policy.noswap import ladder
from autotuned.policy.plan import plan, shrink
from tests.examples import DEEPSEEK_V3, DEFAULTS, POCKET, counted, situation
from tests.strategies import load_shapes, model_facts, needs, shape_defaults, situations

F16, Q8_0 = KvCacheType.F16, KvCacheType.Q8_0
NEITHER, BOTH = CacheTypes(F16, F16), CacheTypes(Q8_0, Q8_0)
NO_FLASH = replace(DEFAULTS, flash_attention=False)


def with_heads(key_length, value_length):
    group = LayerGroup(layers_count=4, kv_heads=2, key_length=key_length, value_length=value_length)
    return replace(POCKET, layer_groups=(group,))


@pytest.mark.parametrize(
    ("facts", "defaults", "types"),
    [
        (POCKET, DEFAULTS, BOTH),
        (POCKET, NO_FLASH, CacheTypes(Q8_0, F16)),
        (with_heads(80, 64), DEFAULTS, CacheTypes(F16, Q8_0)),
        (with_heads(64, 80), DEFAULTS, CacheTypes(Q8_0, F16)),
        (DEEPSEEK_V3, DEFAULTS, BOTH),
        (DEEPSEEK_V3, NO_FLASH, NEITHER),
        (replace(DEEPSEEK_V3, layer_groups=with_heads(80, 0).layer_groups), DEFAULTS, NEITHER),
    ],
)
def test_what_can_be_quantised(facts, defaults, types):
    assert quantised_types(facts, defaults) == types


@given(model_facts(), shape_defaults())
def test_what_is_quantised_can_be_stored(facts, defaults):
    types = quantised_types(facts, defaults)
    assert defaults.flash_attention or types.value is F16
    for group in facts.layer_groups:
        if group.kv_heads:
            assert fits_blocks(group.key_length, types.key)
            assert fits_blocks(group.value_length, types.value)


@given(needs(), situations(), st.integers(0, 1 << 18))
def test_keys_that_stand_for_the_values_never_have_another_type(need, state, kept_tokens):
    group = LayerGroup(layers_count=2, kv_heads=1, key_length=576)
    state = replace(state, facts=replace(state.facts, layer_groups=(*state.facts.layer_groups, group)))
    if state.loaded is not None:
        state = replace(state, loaded=replace(state.loaded, key_cache_type=state.loaded.value_cache_type))
    assert has_latent_attention(state.facts)
    smaller = shrink(state, kept_tokens)
    assert smaller is None or smaller.shape.key_cache_type is smaller.shape.value_cache_type
    try:
        shape = plan(need, state).shape
    except (ContextTooLong, FieldInvalid, WouldSwap):
        reject()
    assert shape.key_cache_type is shape.value_cache_type


@given(model_facts(), shape_defaults(), load_shapes())
def test_smaller_types_are_never_larger_and_leave_what_is_configured(facts, defaults, loaded):
    types = CacheTypes(loaded.key_cache_type, loaded.value_cache_type)
    smaller = smaller_types(types, facts, defaults)
    assert smaller.key is types.key or smaller.key is Q8_0
    assert smaller.value is types.value or smaller.value is Q8_0
    assert smaller_types(smaller, facts, defaults) == smaller
    assert smaller == types or defaults.kv_cache == "auto"


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_the_first_three_levels_keep_the_types(one, other):
    least, full = sorted((one, other))
    assert all(rung.types == NEITHER for rung in ladder(full, least, NEITHER, BOTH) if rung.level < 3)


@given(needs(), situations(), st.sampled_from(ProfileName))
def test_the_profile_of_a_later_request_does_not_decide_the_types(need, state, profile):
    if state.loaded is None:
        reject()
    try:
        one = plan(need, state)
        other = plan(replace(need, profile=profile), state)
    except (ContextTooLong, FieldInvalid, WouldSwap):
        reject()
    for decided in (one, other):
        quiet = state.memory.pressure < PressureTier.HIGH and decided.reduction_level == 0
        if decided.action is PlanAction.REUSE or quiet:
            assert decided.shape.key_cache_type is state.loaded.key_cache_type
            assert decided.shape.value_cache_type is state.loaded.value_cache_type


@given(needs(), situations(loaded=st.none()))
def test_a_cache_that_is_quantised_has_a_reason(need, state):
    types, why = first_types(need, state)
    codes = {reason.code for reason in why}
    assert (Q8_0 in (types.key, types.value)) is ("cache-type" in codes)


def test_a_profile_decides_at_a_load():
    fast = replace(counted(15), profile=ProfileName.FAST)
    assert first_types(fast, situation())[0] == BOTH
    assert first_types(fast, situation(defaults=replace(DEFAULTS, kv_cache="f16")))[0] == NEITHER
