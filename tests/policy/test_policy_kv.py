"""The arithmetic of the KV cache: published sizes, and what holds for every model."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotuned.core.model import LayerGroup
from autotuned.core.plan import CONTEXT_CHECKPOINTS_COUNT, KvCacheType, LoadShape
from autotuned.policy.kv import (
    checkpoint_bytes,
    fits_blocks,
    has_latent_attention,
    kv_cache_bytes,
    layer_cells,
    padded_context,
    recurrent_bytes,
    state_bytes,
    vector_bytes,
)
from tests.examples import DEEPSEEK_V3, GEMMA3_12B, LLAMA_3_1_8B, POCKET, QWEN3_8B, QWEN3_NEXT_80B
from tests.strategies import cache_types, model_facts

F16, Q8_0 = KvCacheType.F16, KvCacheType.Q8_0
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def shape(context, slots=1, *, unified=False, key=F16, value=F16, flash=True, micro_batch=512):
    return LoadShape(
        context_tokens=context,
        slots_count=slots,
        kv_unified=unified,
        key_cache_type=key,
        value_cache_type=value,
        batch_tokens=2048,
        micro_batch_tokens=micro_batch,
        flash_attention=flash,
        gpu_layers_count=0,
        host_prompt_cache_bytes=0,
        memory_mapped=True,
    )


shapes = st.builds(
    shape,
    st.integers(1, 1 << 20),
    st.integers(1, 16),
    unified=st.booleans(),
    key=cache_types,
    value=cache_types,
    flash=st.booleans(),
    micro_batch=st.integers(32, 2048),
)


@pytest.mark.parametrize(
    ("facts", "context_tokens", "cache_type", "expected_bytes"),
    [
        (LLAMA_3_1_8B, 256, F16, 256 * 128 * KIB),
        (LLAMA_3_1_8B, 32_768, F16, 4 * GIB),
        (LLAMA_3_1_8B, 32_768, Q8_0, 2_281_701_376),
        (POCKET, 1024, F16, 1024 * KIB),
        (POCKET, 1536, Q8_0, 1536 * 544),
        (QWEN3_8B, 4096, F16, 576 * MIB),
        (DEEPSEEK_V3, 1024, F16, 1024 * 61 * 576 * 2),
        (QWEN3_NEXT_80B, 1024, F16, 1024 * 24 * KIB),
    ],
)
def test_published_sizes(facts, context_tokens, cache_type, expected_bytes):
    assert kv_cache_bytes(facts, shape(context_tokens, key=cache_type, value=cache_type)) == expected_bytes


def test_gemma_3_keeps_windows_in_five_of_six_layers():
    loaded = shape(32_768, micro_batch=1024)
    windowed, full = (replace(GEMMA3_12B, layer_groups=(group,)) for group in GEMMA3_12B.layer_groups)
    assert kv_cache_bytes(full, loaded) == 2 * GIB
    assert kv_cache_bytes(windowed, loaded) == 640 * MIB
    assert kv_cache_bytes(GEMMA3_12B, loaded) == 2 * GIB + 640 * MIB


def test_deepseek_keeps_one_latent_vector_for_all_heads():
    assert kv_cache_bytes(DEEPSEEK_V3, shape(256)) / 256 / KIB == 68.625
    assert has_latent_attention(DEEPSEEK_V3)
    assert not has_latent_attention(LLAMA_3_1_8B)


def test_qwen3_next_keeps_a_state_beside_few_layers_of_attention():
    assert recurrent_bytes(QWEN3_NEXT_80B, shape(4096)) == 75.375 * MIB
    assert recurrent_bytes(QWEN3_NEXT_80B, shape(1 << 18, 4)) == 4 * 75.375 * MIB
    assert state_bytes(QWEN3_NEXT_80B, shape(1024, 2)) == 2 * (24 + 75.375) * MIB


def test_key_and_value_may_differ_in_length_and_type():
    facts = with_groups(LayerGroup(layers_count=4, kv_heads=2, key_length=96, value_length=64))
    assert kv_cache_bytes(facts, shape(256, key=Q8_0)) == 256 * 4 * 2 * (96 * 34 // 32 + 64 * 2)


def with_groups(*groups):
    return replace(POCKET, layers_count=sum(group.layers_count for group in groups), layer_groups=groups)


VARIED = with_groups(
    LayerGroup(layers_count=1, kv_heads=4, key_length=32, value_length=32),
    LayerGroup(layers_count=2, kv_heads=0, key_length=32, value_length=32),
    LayerGroup(layers_count=1, kv_heads=2, key_length=32, value_length=32),
    LayerGroup(layers_count=3),
)


def test_a_layer_counts_with_its_own_heads():
    assert kv_cache_bytes(VARIED, shape(256)) == 256 * 6 * (64 + 64)


def test_without_flash_attention_every_layer_has_room_for_the_widest_values():
    assert kv_cache_bytes(VARIED, shape(256, flash=False)) == 256 * (6 * 64 + 4 * 4 * 64)
    assert kv_cache_bytes(POCKET, shape(256, flash=False)) == kv_cache_bytes(POCKET, shape(256))


WINDOWED = LayerGroup(layers_count=1, kv_heads=1, key_length=64, value_length=64, window_tokens=1024)


@pytest.mark.parametrize(
    ("loaded", "cells"),
    [
        (shape(4096, micro_batch=512), 1536),
        (shape(4096, micro_batch=513), 1792),
        (shape(4096, 3, micro_batch=512), 3 * 1536),
        (shape(4096, 3, unified=True, micro_batch=512), 3 * 1024 + 512),
        (shape(1200, 2, micro_batch=512), 2 * 1280),
        (shape(1200, 2, unified=True, micro_batch=512), 1280),
        (replace(shape(4096, micro_batch=2048), batch_tokens=256), 1280),
    ],
)
def test_a_window_has_its_tokens_and_one_micro_batch(loaded, cells):
    assert layer_cells(WINDOWED, loaded) == cells


def test_a_unified_cache_is_one_for_all_slots():
    assert kv_cache_bytes(POCKET, shape(4096, 4, unified=True)) == kv_cache_bytes(POCKET, shape(4096))
    assert recurrent_bytes(QWEN3_NEXT_80B, shape(4096, 4, unified=True)) == 4 * 75.375 * MIB


def test_checkpoints_hold_windows_and_states():
    loaded = shape(32_768, 2)
    rows = 40 * 1024 * 8 * 2 * 256 * 2
    assert checkpoint_bytes(GEMMA3_12B, loaded) == 2 * CONTEXT_CHECKPOINTS_COUNT * (rows + 12 * 1024)
    assert checkpoint_bytes(QWEN3_NEXT_80B, loaded) == 2 * CONTEXT_CHECKPOINTS_COUNT * 75.375 * MIB
    assert checkpoint_bytes(LLAMA_3_1_8B, loaded) == 0


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


@given(model_facts(), shapes, st.integers(1, 1 << 20))
def test_more_context_never_takes_less(facts, loaded, other):
    smaller, larger = sorted((loaded.context_tokens, other))
    sizes = [state_bytes(facts, replace(loaded, context_tokens=context)) for context in (smaller, larger)]
    assert sizes == sorted(sizes)


@given(model_facts(), shapes, st.integers(1, 8))
def test_slots_of_their_own_add_up(facts, loaded, more):
    one = replace(loaded, kv_unified=False)
    together = replace(one, slots_count=one.slots_count + more)
    assert state_bytes(facts, together) == state_bytes(facts, one) + state_bytes(
        facts, replace(one, slots_count=more)
    )


@given(model_facts(), shapes)
def test_one_cache_for_all_never_takes_more_than_one_for_each_of_as_many_tokens(facts, loaded):
    unified = replace(loaded, kv_unified=True)
    assert kv_cache_bytes(facts, unified) <= kv_cache_bytes(facts, replace(loaded, kv_unified=False))


@given(model_facts(), shapes)
def test_the_cache_is_whole_cells(facts, loaded):
    full = replace(facts, layer_groups=tuple(replace(group, window_tokens=0) for group in facts.layer_groups))
    streams = 1 if loaded.kv_unified else loaded.slots_count
    assert kv_cache_bytes(full, loaded) % (streams * padded_context(loaded.context_tokens)) == 0
    assert kv_cache_bytes(facts, loaded) <= kv_cache_bytes(full, loaded)


@given(model_facts(), shapes)
def test_quantised_takes_less_where_heads_are_whole_blocks(facts, loaded):
    lengths = [length for group in facts.layer_groups for length in (group.key_length, group.value_length)]
    assume(all(fits_blocks(length, Q8_0) for length in lengths))
    assume(any(lengths))
    plain = kv_cache_bytes(facts, replace(loaded, key_cache_type=F16, value_cache_type=F16))
    quantised = kv_cache_bytes(facts, replace(loaded, key_cache_type=Q8_0, value_cache_type=Q8_0))
    assert Fraction(quantised, plain) == Fraction(17, 32)


@given(model_facts(), shapes)
def test_checkpoints_are_for_models_that_cannot_rewind(facts, loaded):
    assert (checkpoint_bytes(facts, loaded) > 0) == (not facts.rewinds)
