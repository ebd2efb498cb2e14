"""The planner's arithmetic with what the registry tells of a model."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from autotuned.core.model import CacheLayout
from autotuned.policy.registry_facts import facts_of, footprint_at
from tests.examples import DEFAULTS, GEMMA3_12B, LLAMA_3_1_8B, QWEN3_8B
from tests.policy.invented import GIB, LAYERS, MEMORY, download, model
from tests.strategies import model_facts, shape_defaults


def facts(**changes):
    each = model("m", **changes)
    return facts_of(each, each.sizes[0])


def test_a_model_without_layers_has_no_facts():
    assert facts(layer_groups=()) is None


def test_the_facts_are_those_of_the_download():
    each = model("m", sizes=(download(2.5, quantization="Q3_K_M"),), thinks=True)
    found = facts_of(each, each.sizes[0])
    assert found.weights_bytes == int(2.5 * GIB)
    assert found.quantization == "Q3_K_M"
    assert found.layer_groups == LAYERS
    assert (found.layers_count, found.train_context_tokens) == (32, 131_072)
    assert (found.thinks, found.calls_tools) == (True, True)
    assert found.cache_layout is CacheLayout.LLAMACPP


def test_mlx_lays_out_the_cache_in_its_own_way():
    each = model("m", sizes=(download(2.5, of="mlx", quantization="4bit"),))
    assert facts_of(each, each.sizes[0]).cache_layout is CacheLayout.MLX


def test_the_cache_takes_what_its_cells_take():
    whole, smaller = footprint_at(facts(), 8192, DEFAULTS, MEMORY, on_gpu=False)
    assert whole.kv_cache_bytes == GIB
    assert smaller.kv_cache_bytes == GIB * 34 // 64
    assert whole.weights_bytes + whole.repacked_weights_bytes == 4 * GIB


def test_a_gpu_computes_longer_batches():
    processor, _ = footprint_at(facts(), 8192, replace(DEFAULTS, batch_tokens=64), MEMORY, on_gpu=False)
    gpu, _ = footprint_at(facts(), 8192, replace(DEFAULTS, batch_tokens=64), MEMORY, on_gpu=True)
    assert gpu.compute_bytes > 4 * processor.compute_bytes


@pytest.mark.parametrize("known", [LLAMA_3_1_8B, QWEN3_8B, GEMMA3_12B])
def test_the_total_is_that_of_the_file_whatever_the_engine_repacks(known):
    """The registry does not tell the types of tensors."""
    from_file, _ = footprint_at(known, 8192, DEFAULTS, MEMORY, on_gpu=False)
    from_registry, _ = footprint_at(
        replace(known, weights_bytes_by_type=()), 8192, DEFAULTS, MEMORY, on_gpu=False
    )
    assert from_registry.total_bytes == from_file.total_bytes


@given(model_facts(), shape_defaults(), st.integers(1, 1 << 18), st.integers(0, 1 << 18), st.booleans())
def test_a_smaller_cache_never_takes_more_nor_a_longer_context_less(known, defaults, context, more, on_gpu):
    whole, smaller = footprint_at(known, context, defaults, MEMORY, on_gpu=on_gpu)
    longer, _ = footprint_at(known, context + more, defaults, MEMORY, on_gpu=on_gpu)
    assert 0 < smaller.total_bytes <= whole.total_bytes <= longer.total_bytes
