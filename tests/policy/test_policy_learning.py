"""What loads and requests teach."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.learning import Learned, MeasuredLoad
from autotuned.core.memory import Footprint
from autotuned.policy.learning import (
    LEAST_TIMED_TOKENS,
    MOST_LOADS,
    tokens_per_byte,
    with_load,
    with_prefill,
    with_prompt,
    with_usual_context,
)
from autotuned.policy.sizing import DEFAULT_TOKENS_PER_BYTE
from tests.engines.shapes import shape

NOTHING = Learned()
FOOTPRINT = Footprint(
    weights_bytes=1, repacked_weights_bytes=2, kv_cache_bytes=3, compute_bytes=4, process_bytes=5
)


def load(compute_bytes=4, **changes):
    return MeasuredLoad(shape(**changes), replace(FOOTPRINT, compute_bytes=compute_bytes))


def test_of_loads_of_one_kind_the_latest_counts():
    learned = with_load(NOTHING, load(compute_bytes=1, context_tokens=512))
    learned = with_load(learned, load(compute_bytes=2, context_tokens=8192))
    assert learned.loads == (load(compute_bytes=2, context_tokens=8192),)


@pytest.mark.parametrize(
    "change", [{"micro_batch_tokens": 128}, {"flash_attention": False}, {"memory_mapped": False}]
)
def test_each_micro_batch_attention_and_mapping_is_a_kind_of_its_own(change):
    learned = with_load(with_load(NOTHING, load()), load(**change))
    assert learned.loads == (load(), load(**change))


def test_loads_are_bounded_and_the_least_recent_one_goes():
    learned = NOTHING
    for micro_batch_tokens in range(32, 32 + MOST_LOADS + 1):
        learned = with_load(learned, load(micro_batch_tokens=micro_batch_tokens))
    assert len(learned.loads) == MOST_LOADS
    assert learned.loads[0].shape.micro_batch_tokens == 33


def test_a_prefill_rate_moves_a_quarter_of_the_way():
    learned = with_prefill(NOTHING, 1000, 2.0)
    assert learned.prefill_tokens_per_second == 500.0
    assert with_prefill(learned, 1000, 1.0).prefill_tokens_per_second == 625.0


@given(st.integers(0, LEAST_TIMED_TOKENS - 1), st.floats(0, 1e6))
def test_a_prefill_that_hits_the_cache_says_nothing_of_speed(evaluated_tokens, seconds):
    assert with_prefill(NOTHING, evaluated_tokens, seconds) is NOTHING


def test_an_engine_that_tells_no_time_teaches_nothing():
    assert with_prefill(NOTHING, 1000, 0.0) is NOTHING


@given(st.lists(st.tuples(st.integers(64, 1 << 20), st.floats(1e-3, 1e3)), min_size=1, max_size=10))
def test_the_rate_stays_within_what_was_seen(prefills):
    learned = NOTHING
    for evaluated_tokens, seconds in prefills:
        learned = with_prefill(learned, evaluated_tokens, seconds)
    rates = [evaluated_tokens / seconds for evaluated_tokens, seconds in prefills]
    assert min(rates) * 0.999 <= learned.prefill_tokens_per_second <= max(rates) * 1.001


def test_a_counted_prompt_teaches_tokens_per_byte_and_a_short_one_nothing():
    assert tokens_per_byte(NOTHING) == DEFAULT_TOKENS_PER_BYTE
    assert with_prompt(NOTHING, 100, 90, 1) is NOTHING
    assert tokens_per_byte(with_prompt(NOTHING, 1000, 900, 0)) == 0.9


def test_the_usual_context_is_kept():
    assert with_usual_context(NOTHING, 3000).usual_context_tokens == 3000
