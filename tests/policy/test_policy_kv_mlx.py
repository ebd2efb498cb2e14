"""The arithmetic against MLX itself: what its caches take once a context is full."""

from dataclasses import replace

import pytest

pytest.importorskip("mlx_lm", reason="mlx-lm is not installed")

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from autotuned.core.model import CacheLayout
from autotuned.core.plan import KvCacheType
from autotuned.engines.mlx.facts import model_facts
from autotuned.engines.mlx.inside.cache_bytes import full_bytes
from autotuned.policy.kv import checkpoint_bytes, kv_cache_bytes, recurrent_bytes, state_bytes
from tests.engines.mlx_models import CONFIGURATIONS, write_model
from tests.engines.shapes import shape

F16, Q8_0 = KvCacheType.F16, KvCacheType.Q8_0
CONTEXT, BATCH = 256, 64
SHAPE = shape(context_tokens=CONTEXT, batch_tokens=BATCH, micro_batch_tokens=BATCH)


# MLX computes layers with experts on a CPU in single precision only.
SINGLE = {"gpt_oss"}


def filled(model, caches, tokens=CONTEXT, batch=BATCH):
    """The caches with so many tokens, computed batch by batch."""
    for _ in range(tokens // batch):
        model(mx.array([[5] * batch]), cache=caches)
        mx.eval([cache.state for cache in caches])
    return caches


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_byte_of_a_full_context_is_computed(tmp_path, name):
    model = write_model(tmp_path / "model", name, mx.float32 if name in SINGLE else mx.bfloat16)
    facts = model_facts(tmp_path / "model")
    assert facts.cache_layout is CacheLayout.MLX
    caches = filled(model, make_prompt_cache(model))
    assert state_bytes(facts, SHAPE) - sum(cache.nbytes for cache in caches) == 0
    few = filled(model, make_prompt_cache(model), 32, 32)
    assert full_bytes(few, context_tokens=CONTEXT, batch_tokens=BATCH) == state_bytes(facts, SHAPE)


@pytest.mark.parametrize("name", ["llama", "qwen3", "llama with windows", "qwen3_next"])
def test_every_byte_of_a_quantised_context_is_computed(tmp_path, name):
    model = write_model(tmp_path / "model", name)
    facts = model_facts(tmp_path / "model")
    quantised = replace(SHAPE, key_cache_type=Q8_0, value_cache_type=Q8_0)
    group_size = 32 if name == "qwen3" else 64
    caches = [
        cache.to_quantized(group_size=group_size, bits=8) if type(cache).__name__ == "KVCache" else cache
        for cache in make_prompt_cache(model)
    ]
    filled(model, caches)
    assert state_bytes(facts, quantised) == sum(cache.nbytes for cache in caches)
    assert state_bytes(facts, quantised) < state_bytes(facts, SHAPE)


def test_a_model_in_single_precision_takes_twice_as_much(tmp_path):
    model = write_model(tmp_path / "model", "llama", mx.float32)
    facts = model_facts(tmp_path / "model")
    caches = filled(model, make_prompt_cache(model))
    assert kv_cache_bytes(facts, SHAPE) == sum(cache.nbytes for cache in caches)
    assert facts.cache_element_bytes == 4


def test_only_models_that_cannot_rewind_keep_copies(tmp_path):
    write_model(tmp_path / "llama", "llama")
    write_model(tmp_path / "hybrid", "qwen3_next")
    assert checkpoint_bytes(model_facts(tmp_path / "llama"), SHAPE) == 0
    facts = model_facts(tmp_path / "hybrid")
    assert checkpoint_bytes(facts, SHAPE) == 2 * recurrent_bytes(facts, SHAPE) > 0
