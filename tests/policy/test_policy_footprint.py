"""The estimate of what a model takes: what it takes from earlier loads, and how it follows the shape."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.learning import Learned, MeasuredLoad
from autotuned.core.memory import Footprint
from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.policy.footprint import estimate_footprint, prefers_mapping
from autotuned.policy.kv import checkpoint_bytes, state_bytes
from tests.examples import LLAMA_3_1_8B, POCKET
from tests.strategies import model_facts

MIB = 1 << 20
SHAPE = LoadShape(
    context_tokens=2048,
    slots_count=1,
    kv_unified=False,
    key_cache_type=KvCacheType.F16,
    value_cache_type=KvCacheType.F16,
    batch_tokens=512,
    micro_batch_tokens=512,
    flash_attention=True,
    gpu_layers_count=0,
    host_prompt_cache_bytes=0,
    memory_mapped=True,
)
UNSEEN = Learned()

shapes = st.builds(
    replace,
    st.just(SHAPE),
    context_tokens=st.integers(256, 1 << 18),
    slots_count=st.integers(1, 8),
    kv_unified=st.booleans(),
    key_cache_type=st.sampled_from(KvCacheType),
    batch_tokens=st.integers(32, 2048),
    micro_batch_tokens=st.sampled_from([32, 128, 512]),
    flash_attention=st.booleans(),
    host_prompt_cache_bytes=st.integers(0, 1 << 34),
    memory_mapped=st.booleans(),
)


def learned(facts, shape, **measured):
    """One load, measured as it is estimated but for these parts."""
    return Learned(
        loads=(MeasuredLoad(shape, replace(estimate_footprint(facts, shape, UNSEEN), **measured)),)
    )


@given(facts=model_facts(), shape=shapes)
def test_state_is_exact_and_every_part_is_there(facts, shape):
    footprint = estimate_footprint(facts, shape, UNSEEN)
    assert footprint.kv_cache_bytes == state_bytes(facts, shape) + checkpoint_bytes(facts, shape)
    assert footprint.host_prompt_cache_bytes == shape.host_prompt_cache_bytes
    assert footprint.weights_bytes + footprint.repacked_weights_bytes >= facts.weights_bytes
    assert footprint.compute_bytes > 0
    assert footprint.process_bytes > 0


@given(
    facts=model_facts(),
    shape=shapes,
    tokens=st.integers(0, 1 << 17),
    known=st.one_of(st.none(), shapes),
    compute=st.integers(0, 1 << 32),
)
def test_more_context_never_takes_less(facts, shape, tokens, known, compute):
    seen = learned(facts, known, compute_bytes=compute) if known else UNSEEN
    larger = replace(shape, context_tokens=shape.context_tokens + tokens)
    less, more = (estimate_footprint(facts, each, seen) for each in (shape, larger))
    assert more.total_bytes >= less.total_bytes
    assert more.compute_bytes >= less.compute_bytes


@given(facts=model_facts(), shape=shapes, process=st.integers(0, 1 << 30), repacked=st.integers(0, 1 << 38))
def test_the_same_load_again_takes_what_it_took(facts, shape, process, repacked):
    with_flash = replace(shape, flash_attention=True)
    seen = learned(facts, with_flash, process_bytes=process, repacked_weights_bytes=repacked)
    again = estimate_footprint(facts, with_flash, seen)
    measured = seen.loads[0].footprint
    assert again.compute_bytes == pytest.approx(measured.compute_bytes, abs=1)
    assert replace(again, compute_bytes=0) == replace(measured, compute_bytes=0)


def test_the_computation_grows_with_the_mask_alone_when_the_context_grows():
    seen = learned(POCKET, SHAPE, compute_bytes=round(7.28 * MIB))
    for context in (4096, 8192):
        shape = replace(SHAPE, context_tokens=context)
        grown = estimate_footprint(POCKET, shape, seen).compute_bytes
        assert grown == round(7.28 * MIB) + (context - 2048) * 512 * 2


def test_the_computation_follows_the_micro_batch():
    seen = learned(POCKET, SHAPE, compute_bytes=round(7.28 * MIB))
    logits = 2048 * 4
    for micro_batch in (32, 128, 256):
        shape = replace(SHAPE, micro_batch_tokens=micro_batch)
        found = estimate_footprint(POCKET, shape, seen).compute_bytes
        assert found == pytest.approx(logits + (7.28 * MIB - logits) * micro_batch / 512, rel=1e-3)
    # A batch that is shorter than the micro-batch is all that is ever computed at once.
    short = replace(SHAPE, batch_tokens=64)
    assert estimate_footprint(POCKET, short, seen) == estimate_footprint(
        POCKET, replace(short, micro_batch_tokens=64), seen
    )


def test_the_load_that_is_most_like_it_counts():
    def load(process_bytes, **changes):
        footprint = replace(estimate_footprint(POCKET, SHAPE, UNSEEN), process_bytes=process_bytes)
        return MeasuredLoad(replace(SHAPE, **changes), footprint)

    loads = (
        load(1),
        load(2, micro_batch_tokens=128),
        load(3, flash_attention=False),
        load(4, memory_mapped=False),
        load(5, memory_mapped=False, micro_batch_tokens=128),
    )

    def process_bytes(**changes):
        return estimate_footprint(POCKET, replace(SHAPE, **changes), Learned(loads=loads)).process_bytes

    assert process_bytes() == 1
    assert process_bytes(context_tokens=9999, slots_count=3) == 1
    assert process_bytes(micro_batch_tokens=128) == 2
    assert process_bytes(flash_attention=False, micro_batch_tokens=128) == 3
    assert process_bytes(memory_mapped=False) == 4
    assert process_bytes(memory_mapped=False, micro_batch_tokens=128) == 5
    # The latest of those that are as good.
    assert process_bytes(micro_batch_tokens=64) == 2


def test_weights_that_are_repacked_are_there_twice_only_when_the_file_is_mapped():
    q4_bytes = dict(LLAMA_3_1_8B.weights_bytes_by_type)["Q4_K"]
    mapped = estimate_footprint(LLAMA_3_1_8B, SHAPE, UNSEEN)
    assert (mapped.weights_bytes, mapped.repacked_weights_bytes) == (LLAMA_3_1_8B.weights_bytes, q4_bytes)
    read = estimate_footprint(LLAMA_3_1_8B, replace(SHAPE, memory_mapped=False), UNSEEN)
    assert read.weights_bytes + read.repacked_weights_bytes == LLAMA_3_1_8B.weights_bytes
    # What one load measured serves the other way of loading, too.
    seen = learned(LLAMA_3_1_8B, SHAPE, repacked_weights_bytes=1000)
    read = estimate_footprint(LLAMA_3_1_8B, replace(SHAPE, memory_mapped=False), seen)
    assert (read.weights_bytes, read.repacked_weights_bytes) == (LLAMA_3_1_8B.weights_bytes - 1000, 1000)


def test_what_is_mostly_repacked_is_better_read():
    assert prefers_mapping(POCKET)
    assert not prefers_mapping(LLAMA_3_1_8B)
    half = replace(POCKET, weights_bytes=10, weights_bytes_by_type=(("F16", 6), ("Q4_0", 4)))
    assert prefers_mapping(half)


def test_without_flash_attention_scores_take_more_than_masks():
    plain = replace(SHAPE, flash_attention=False)
    with_flash, without = (
        estimate_footprint(LLAMA_3_1_8B, shape, UNSEEN).compute_bytes for shape in (SHAPE, plain)
    )
    # 32 heads, F32 scores and their F16 copy, and a mask that is twice as wide.
    assert without - with_flash == 512 * 2048 * (32 * (4 + 2) + 4 - 2)


def test_a_file_that_tells_little_still_gets_an_estimate():
    bare = replace(POCKET, parameters_count=0, layer_groups=(), layers_count=0, embedding_length=0)
    footprint = estimate_footprint(bare, SHAPE, UNSEEN)
    assert isinstance(footprint, Footprint)
    assert footprint.kv_cache_bytes == 0
