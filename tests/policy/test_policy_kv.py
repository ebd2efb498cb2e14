from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotuned.core.plan import KvCacheType
from autotuned.policy.kv import cell_bytes, fits_blocks, kv_cache_bytes, padded_context, vector_bytes
from tests.examples import POCKET
from tests.strategies import cache_types, model_facts

F16, Q8_0 = KvCacheType.F16, KvCacheType.Q8_0
KIB, GIB = 1 << 10, 1 << 30

contexts = st.integers(1, 1 << 20)
layouts = st.fixed_dictionaries({"key": cache_types, "value": cache_types, "flash_attention": st.booleans()})


def architecture(layers, heads, head_length):
    return replace(
        POCKET,
        layers_count=layers,
        kv_heads_per_layer=(heads,) * layers,
        key_length=head_length,
        value_length=head_length,
    )


LLAMA_8B = architecture(layers=32, heads=8, head_length=128)
QWEN_8B = architecture(layers=36, heads=8, head_length=128)


def cache(facts, context_tokens, slots_count=1, *, key=F16, value=F16, flash_attention=True):
    return kv_cache_bytes(
        facts,
        context_tokens=context_tokens,
        slots_count=slots_count,
        key_cache_type=key,
        value_cache_type=value,
        flash_attention=flash_attention,
    )


@pytest.mark.parametrize(
    ("facts", "context_tokens", "cache_type", "expected_bytes"),
    [
        (LLAMA_8B, 256, F16, 256 * 128 * KIB),
        (LLAMA_8B, 32_768, F16, 4 * GIB),
        (LLAMA_8B, 32_768, Q8_0, 2_281_701_376),
        (POCKET, 1024, F16, 1024 * KIB),
        (POCKET, 1536, Q8_0, 1536 * 544),
        (QWEN_8B, 4096, F16, 576 * KIB * KIB),
    ],
)
def test_published_sizes(facts, context_tokens, cache_type, expected_bytes):
    assert cache(facts, context_tokens, key=cache_type, value=cache_type) == expected_bytes


def test_key_and_value_may_differ_in_length_and_type():
    facts = replace(POCKET, key_length=96, value_length=64)
    assert cache(facts, 256, key=Q8_0, value=F16) == 256 * 4 * 2 * (96 * 34 // 32 + 64 * 2)


def test_a_layer_counts_with_its_own_heads():
    assert cache(replace(POCKET, kv_heads_per_layer=(4, 0, 2, 0)), 256) == 256 * 6 * (64 + 64)


def test_without_flash_attention_every_layer_has_room_for_the_widest_values():
    facts = replace(POCKET, kv_heads_per_layer=(4, 0, 2, 0))
    assert cache(facts, 256, flash_attention=False) == 256 * (6 * 64 + 4 * 4 * 64)
    assert cache(POCKET, 256, flash_attention=False) == cache(POCKET, 256)


@given(st.integers(0, 1 << 40))
def test_padding_is_the_next_whole_step(tokens):
    padded = padded_context(tokens)
    assert padded % 256 == 0
    assert tokens <= padded < tokens + 256
    assert padded_context(padded) == padded


@given(st.sampled_from([32, 64, 96, 128, 256]))
def test_a_quantised_element_takes_a_byte_and_a_sixteenth(length):
    assert Fraction(vector_bytes(length, Q8_0), length) == Fraction(17, 16)
    assert vector_bytes(length, F16) == 2 * length


@pytest.mark.parametrize(("length", "quantised"), [(32, True), (80, False), (96, True), (100, False)])
def test_only_whole_blocks_can_be_quantised(length, quantised):
    assert fits_blocks(length, Q8_0) is quantised
    assert fits_blocks(length, F16)


@given(model_facts(), contexts, contexts, layouts)
def test_more_context_never_takes_less(facts, one, other, layout):
    smaller, larger = sorted((one, other))
    assert cache(facts, smaller, **layout) <= cache(facts, larger, **layout)


@given(model_facts(), contexts, st.integers(1, 8), st.integers(1, 8), layouts)
def test_slots_add_up(facts, context, some, more, layout):
    together = cache(facts, context, some + more, **layout)
    assert together == cache(facts, context, some, **layout) + cache(facts, context, more, **layout)


@given(model_facts(), contexts, layouts)
def test_the_cache_is_whole_cells(facts, context, layout):
    per_cell = cell_bytes(
        facts,
        key_cache_type=layout["key"],
        value_cache_type=layout["value"],
        flash_attention=layout["flash_attention"],
    )
    assert cache(facts, context, **layout) == padded_context(context) * per_cell


@given(model_facts(), contexts)
def test_quantised_takes_less_where_heads_are_whole_blocks(facts, context):
    assume(fits_blocks(facts.key_length, Q8_0) and fits_blocks(facts.value_length, Q8_0))
    assume(sum(facts.kv_heads_per_layer))
    quantised = cache(facts, context, key=Q8_0, value=Q8_0)
    assert Fraction(quantised, cache(facts, context)) == Fraction(17, 32)
