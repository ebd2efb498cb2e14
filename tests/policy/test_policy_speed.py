"""Tokens a second by estimate: what a token reads from memory, and what a layer takes beside."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from autotuned.core.hardware import Bandwidth
from autotuned.policy.places import Place
from autotuned.policy.speed import (
    Decoding,
    decode_tokens_per_second,
    decoding_of,
    installed_tokens_per_second,
)
from tests.examples import LLAMA_3_1_8B
from tests.policy.invented import GIB, budget, model

# Llama 7B in Q4_0, of which llama.cpp publishes speeds.
SEVEN = Decoding(weights_bytes=3_825_065_984, layers_count=32)


def bandwidth(gigabytes_per_second):
    return Bandwidth(bytes_per_second=int(gigabytes_per_second * 1e9))


@pytest.mark.parametrize(
    ("gigabytes_per_second", "published"), [(68, 14.2), (200, 36.4), (400, 61.2), (546, 83.1)]
)
def test_it_is_close_to_what_llamacpp_publishes_for_apple_silicon(gigabytes_per_second, published):
    estimated = decode_tokens_per_second(SEVEN, Place.UNIFIED, bandwidth(gigabytes_per_second))
    assert estimated == pytest.approx(published, rel=0.12)


def test_what_is_not_known_is_not_estimated():
    assert decode_tokens_per_second(SEVEN, Place.RAM, Bandwidth()) == 0
    assert decode_tokens_per_second(replace(SEVEN, weights_bytes=0), Place.RAM, bandwidth(50)) == 0


def test_a_mixture_reads_only_the_parameters_that_compute_a_token():
    dense = model("dense", 16.0)
    mixture = replace(dense, active_parameters_count=dense.parameters_count // 10)
    speeds = [
        decode_tokens_per_second(decoding_of(each, 16 * GIB), Place.RAM, bandwidth(80))
        for each in (dense, mixture)
    ]
    assert speeds[0] == pytest.approx(3.9, abs=0.1)
    assert 4 * speeds[0] < speeds[1] < 10 * speeds[0]


def test_more_active_parameters_than_there_are_count_as_all():
    odd = model("odd", active_parameters_count=10**12)
    assert decoding_of(odd, GIB).active_ratio == 1


decodings = st.builds(
    Decoding,
    weights_bytes=st.integers(1, 1 << 40),
    layers_count=st.integers(0, 200),
    active_ratio=st.floats(0.01, 1.0),
)


@given(decodings, st.sampled_from(Place), st.integers(1, 10**13), st.integers(0, 10**13))
def test_more_bandwidth_is_never_slower(decoding, place, bytes_per_second, more):
    slow, fast = Bandwidth(bytes_per_second=bytes_per_second), bytes_per_second + more
    slower = decode_tokens_per_second(decoding, place, slow)
    assert 0 < slower <= decode_tokens_per_second(decoding, place, Bandwidth(bytes_per_second=fast))


@given(decodings, st.sampled_from(Place), st.integers(0, 1 << 40), st.integers(0, 100))
def test_more_bytes_or_layers_are_never_faster(decoding, place, more_bytes, more_layers):
    larger = replace(
        decoding,
        weights_bytes=decoding.weights_bytes + more_bytes,
        layers_count=decoding.layers_count + more_layers,
    )
    known = bandwidth(100)
    assert decode_tokens_per_second(larger, place, known) <= decode_tokens_per_second(decoding, place, known)


GPU = budget(8, Place.GPU, gigabytes_per_second=900)
RAM = budget(32, Place.RAM, gigabytes_per_second=60)


def test_an_installed_model_is_as_fast_as_the_first_memory_that_holds_it():
    on_gpu = installed_tokens_per_second(LLAMA_3_1_8B, 6 * GIB, None, (GPU, RAM))
    in_ram = installed_tokens_per_second(LLAMA_3_1_8B, 9 * GIB, None, (GPU, RAM))
    assert on_gpu == pytest.approx(130, rel=0.2)
    assert in_ram == pytest.approx(10, rel=0.1)


def test_a_gpu_that_nothing_uses_makes_no_model_faster():
    unused = replace(GPU, is_used=False)
    assert installed_tokens_per_second(
        LLAMA_3_1_8B, 6 * GIB, None, (unused, RAM)
    ) == installed_tokens_per_second(LLAMA_3_1_8B, 6 * GIB, None, (RAM,))


def test_an_installed_model_that_fits_nowhere_has_no_speed():
    assert installed_tokens_per_second(LLAMA_3_1_8B, 33 * GIB, None, (GPU, RAM)) == 0


@pytest.mark.parametrize(
    "architecture",
    [
        "qwen3moe",
        "qwen35moe",
        "glm4moe",
        "gpt-oss",
        "gpt_oss",
        "deepseek2",
        "llama4",
        "qwen3_next",
        "dots1",
        "jamba",
    ],
)
def test_of_a_mixture_that_the_registry_does_not_know_nobody_can_tell(architecture):
    facts = replace(LLAMA_3_1_8B, architecture=architecture)
    assert installed_tokens_per_second(facts, 6 * GIB, None, (RAM,)) == 0
    known = model("known", active_parameters_count=10**9)
    assert installed_tokens_per_second(facts, 6 * GIB, known, (RAM,)) > 20


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "smollm3", "phi3"])
def test_a_dense_model_needs_no_registry(architecture):
    facts = replace(LLAMA_3_1_8B, architecture=architecture)
    assert installed_tokens_per_second(facts, 6 * GIB, None, (RAM,)) > 0
