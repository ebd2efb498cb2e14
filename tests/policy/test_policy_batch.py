from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.learning import Learned
from autotuned.core.memory import MemoryView, PressureTier
from autotuned.core.model import CacheLayout
from autotuned.policy.batch import (
    ASSUMED_FLOPS_PER_CORE,
    MLX_CPU_SLOWNESS,
    batch_tokens,
    estimated_tokens_per_second,
    micro_batch_tokens,
    prefill_tokens_per_second,
)
from tests.examples import DEFAULTS, LLAMA_3_1_8B, PLENTY, POCKET, situation
from tests.strategies import pressures

CHOOSE = replace(DEFAULTS, batch_tokens=0)
CRITICAL = MemoryView(reading=PLENTY, pressure=PressureTier.CRITICAL)


@pytest.mark.parametrize(
    ("tokens_per_second", "tokens"),
    [(1, 32), (127, 32), (256, 64), (2047, 256), (2048, 512), (7000, 1024), (8192, 2048), (1e9, 2048)],
)
def test_a_batch_lasts_a_quarter_of_a_second_at_most(tokens_per_second, tokens):
    learned = Learned(prefill_tokens_per_second=tokens_per_second)
    assert batch_tokens(situation(defaults=CHOOSE, learned=learned)) == tokens


def test_mlx_is_not_taken_to_be_as_fast_on_a_cpu_until_it_is_measured():
    mlx = replace(POCKET, cache_layout=CacheLayout.MLX)
    here, on_a_gpu = situation(mlx, defaults=CHOOSE), situation(mlx, defaults=replace(CHOOSE, gpu=True))
    assert prefill_tokens_per_second(here) * MLX_CPU_SLOWNESS == prefill_tokens_per_second(on_a_gpu)
    assert prefill_tokens_per_second(on_a_gpu) == prefill_tokens_per_second(situation(defaults=CHOOSE))
    measured = situation(mlx, defaults=CHOOSE, learned=Learned(prefill_tokens_per_second=500.0))
    assert prefill_tokens_per_second(measured) == 500.0


@given(st.floats(0.1, 1e7), st.floats(0.1, 1e7))
def test_a_faster_model_never_gets_a_smaller_batch(one, other):
    slower, faster = (
        batch_tokens(situation(defaults=CHOOSE, learned=Learned(prefill_tokens_per_second=speed)))
        for speed in sorted((one, other))
    )
    assert 32 <= slower <= faster <= 2048
    assert slower.bit_count() == faster.bit_count() == 1


def test_critical_pressure_halves_what_was_chosen_and_not_what_was_configured():
    learned = Learned(prefill_tokens_per_second=2048)
    assert batch_tokens(situation(defaults=CHOOSE, learned=learned, memory=CRITICAL)) == 256
    slow = Learned(prefill_tokens_per_second=1)
    assert batch_tokens(situation(defaults=CHOOSE, learned=slow, memory=CRITICAL)) == 32
    assert batch_tokens(situation(learned=learned, memory=CRITICAL)) == 512


def test_what_was_measured_counts_before_what_is_estimated():
    assert prefill_tokens_per_second(situation(learned=Learned(prefill_tokens_per_second=3.5))) == 3.5
    estimate = estimated_tokens_per_second(POCKET, 2)
    assert prefill_tokens_per_second(situation()) == estimate


def test_the_estimate_goes_by_parameters_and_cores():
    eight = estimated_tokens_per_second(LLAMA_3_1_8B, 8)
    assert eight == pytest.approx(8 * ASSUMED_FLOPS_PER_CORE / (2 * 8_030_261_312))
    assert estimated_tokens_per_second(LLAMA_3_1_8B, 16) == 2 * eight
    unknown = replace(LLAMA_3_1_8B, parameters_count=0)
    assert estimated_tokens_per_second(unknown, 8) > eight
    assert estimated_tokens_per_second(replace(unknown, weights_bytes=0), 0) > 0


def test_one_computation_holds_at_most_512_tokens():
    assert [micro_batch_tokens(batch) for batch in (32, 512, 2048)] == [32, 512, 512]


@given(st.floats(0.1, 1e7), pressures)
def test_a_chosen_batch_lasts_a_quarter_of_a_second_at_most_or_is_the_smallest(speed, pressure):
    memory = MemoryView(reading=PLENTY, pressure=pressure)
    learned = Learned(prefill_tokens_per_second=speed)
    chosen = batch_tokens(situation(defaults=CHOOSE, learned=learned, memory=memory))
    assert chosen.bit_count() == 1
    assert chosen == 32 or (chosen <= 2048 and chosen / speed <= 0.25)
