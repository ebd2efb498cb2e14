"""The arithmetic against the engine: llama.cpp tells, while it loads, what it allocates."""

from dataclasses import replace

import pytest

from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.engines.gguf import read_header
from autotuned.engines.gguf_facts.facts import model_facts
from autotuned.policy.kv import has_latent_attention, kv_cache_bytes, layer_cells, recurrent_bytes
from tests.engines.allocations import allocations
from tests.engines.random_models import write_model

F16, Q8_0 = KvCacheType.F16, KvCacheType.Q8_0
MEBIBYTE = 1 << 20
# The log rounds to two decimals of a MiB, in single precision.
ROUNDING_BYTES = 0.0051 * MEBIBYTE


def shape(context, slots=1, *, unified=False, key=F16, value=F16, flash=True, micro_batch=64, batch=512):
    return LoadShape(
        context_tokens=context,
        slots_count=slots,
        kv_unified=unified,
        key_cache_type=key,
        value_cache_type=value,
        batch_tokens=batch,
        micro_batch_tokens=micro_batch,
        flash_attention=flash,
        gpu_layers_count=0,
        host_prompt_cache_bytes=0,
        memory_mapped=True,
    )


SHAPES = (
    shape(3000),
    shape(2817, 2, key=Q8_0, value=Q8_0, micro_batch=200),
    shape(3500, 3, key=Q8_0, micro_batch=512),
    shape(4001, 3, unified=True, micro_batch=300),
    shape(8191, 2, unified=True, key=Q8_0, value=Q8_0, micro_batch=513, batch=700),
    shape(3333, 2, flash=False, micro_batch=32),
    shape(4097, 1, key=Q8_0, flash=False, micro_batch=512, batch=256),
)
MODELS = {
    "llama": {},
    "llama, wide heads": {"head_length": 96, "embedding": 384},
    "deci": {"layers": 5, "kv_heads": [2, 0, 4, 0, 2]},
    "qwen3": {"kv_heads": 1, "head_length": 128},
    "phi3": {"window": 700},
    "gemma2": {"window": 1300, "layers": 8},
    "gemma2, without its key": {"keys": {"attention.sliding_window": None}},
    "gemma3": {"window": 1300, "layers": 14},
    "gemma3, without a window": {"keys": {"attention.sliding_window": 0}},
    "gemma3, another period": {"window": 1500, "keys": {"attention.sliding_window_pattern": 2}, "layers": 9},
    "gemma3, with a list of layers": {
        "window": 1300,
        "layers": 9,
        "keys": {"attention.sliding_window_pattern": [True, False, True, True, False, True, True]},
    },
    "qwen3, with a list that counts for nothing": {
        "keys": {"attention.sliding_window": 700, "attention.sliding_window_pattern": [True] * 4},
    },
    "exaone4, small": {"window": 1300, "layers": 8},
    "exaone4, large": {"window": 1300, "layers": 64, "embedding": 32, "heads": 1, "kv_heads": 1},
    "lfm2, with windows": {"layers": 15, "keys": {"attention.sliding_window": 1300}},
    "gemma4": {"window": 1300, "layers": 11},
    "gpt-oss": {"window": 1300, "layers": 7},
    "cohere2": {"window": 1300, "layers": 9},
    "olmo2": {"window": 1300, "layers": 9},
    "deepseek2": {},
    "deepseek2, as older files have it": {"latent": False},
    "mamba": {"embedding": 256},
    "mamba2": {"embedding": 256},
    "rwkv7": {"embedding": 256, "layers": 6},
    "falcon-h1": {},
    "granitehybrid": {"layers": 9},
    "jamba": {"layers": 7},
    "lfm2": {"layers": 9, "embedding": 512, "head_length": 128},
    "nemotron_h": {"layers": 12},
    "qwen3next": {"layers": 9},
    "qwen3, with layers that predict": {"keys": {"nextn_predict_layers": 2, "block_count": 6}},
    "qwen3next, with a layer that predicts": {
        "layers": 12,
        "keys": {"nextn_predict_layers": 1, "block_count": 13},
    },
    "granitehybrid, with a layer that predicts": {
        "layers": 3,
        "keys": {
            "nextn_predict_layers": 1,
            "block_count": 4,
            "attention.head_count_kv": [0, 0, 2, 2],
        },
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_allocates_what_was_computed(name, tmp_path):
    path = write_model(tmp_path / "model.gguf", name.split(",")[0], **MODELS[name])
    facts = model_facts((read_header(path),), path)
    shapes = [
        each
        for each in SHAPES
        if each.key_cache_type is each.value_cache_type or not has_latent_attention(facts)
    ]
    for each, told in zip(shapes, allocations(path, shapes, tmp_path), strict=True):
        full, windowed = with_layers(facts, windows=False), with_layers(facts, windows=True)
        computed = [part for part in (full, windowed) if cached_layers(part)]
        assert len(told.caches) == len(computed)
        for part, cache in zip(computed, told.caches, strict=True):
            # Two bytes more in a row would show, whatever the log rounds away.
            assert 2 * cache.rows > 2 * ROUNDING_BYTES
            assert cache.layers == cached_layers(part)
            cells = {layer_cells(group, each) for group in part.layer_groups if group.layers_count}
            assert {cache.cells * cache.streams} == cells
            assert abs(kv_cache_bytes(part, each) - cache.mebibytes * MEBIBYTE) <= ROUNDING_BYTES
        assert kv_cache_bytes(facts, each) == kv_cache_bytes(full, each) + kv_cache_bytes(windowed, each)
        assert abs(recurrent_bytes(facts, each) - told.recurrent_mebibytes * MEBIBYTE) <= ROUNDING_BYTES


def with_layers(facts, *, windows):
    """The same model with the layers alone that have a window, or have none."""
    return replace(
        facts,
        layer_groups=tuple(
            replace(group, layers_count=group.layers_count * (windows == (group.window_tokens > 0)))
            for group in facts.layer_groups
        ),
    )


def cached_layers(facts):
    return sum(group.layers_count for group in facts.layer_groups if group.key_length)
