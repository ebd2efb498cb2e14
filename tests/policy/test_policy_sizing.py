from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.policy.profiles import PROFILES
from autotuned.policy.sizing import (
    BUCKETS,
    DEFAULT_TOKENS_PER_BYTE,
    LEAST_LEARNABLE_BYTES,
    LONGEST_TOKEN_BYTES,
    SPARE_TOKENS,
    estimate_prompt_tokens,
    learn_tokens_per_byte,
    least_context,
    least_prompt_tokens,
    least_reply,
    needed_context,
    reserved_reply,
    snap_down,
    snap_up,
    suffices,
)
from tests.examples import counted
from tests.strategies import load_shapes, needs

tokens_counts = st.integers(0, 1 << 24)
ratios = st.floats(0, 1, exclude_min=True)
learnable_bytes = st.integers(LEAST_LEARNABLE_BYTES, 1 << 26)


def test_the_published_buckets_and_how_they_go_on():
    published = (512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12_288, 16_384, 32_768)
    assert BUCKETS[: len(published)] == published
    assert BUCKETS[len(published) :][:6] == (49_152, 65_536, 98_304, 131_072, 196_608, 262_144)


def test_buckets_are_whole_steps_that_at_most_double():
    for smaller, larger in pairwise(BUCKETS):
        assert smaller < larger <= 2 * smaller
        assert larger % 256 == 0


@pytest.mark.parametrize(
    ("tokens", "ceiling", "bucket"),
    [(1, 8192, 512), (512, 8192, 512), (513, 8192, 768), (16_385, 131_072, 32_768), (7000, 8000, 8000)],
)
def test_snapping_by_example(tokens, ceiling, bucket):
    assert snap_up(tokens, ceiling) == bucket


@given(tokens_counts, st.integers(1, 1 << 40))
def test_a_snapped_context_holds_the_tokens_or_is_the_ceiling(tokens, ceiling):
    snapped = snap_up(tokens, ceiling)
    assert snapped <= ceiling
    assert snapped >= tokens or snapped == ceiling
    assert snap_up(snapped, ceiling) == snapped


def test_beyond_the_last_bucket_the_ceiling_remains():
    assert snap_up(BUCKETS[-1] + 1, 1 << 40) == 1 << 40


@given(tokens_counts, tokens_counts, st.integers(1, 1 << 24))
def test_snapping_keeps_the_order(one, other, ceiling):
    smaller, larger = sorted((one, other))
    assert snap_up(smaller, ceiling) <= snap_up(larger, ceiling)


@pytest.mark.parametrize(
    ("wanted", "tokens"),
    [(counted(15, 1024), 1295), (counted(3, 100), 512), (counted(15, 1024, context_tokens=300), 300)],
)
def test_the_context_formula(wanted, tokens):
    assert needed_context(wanted) == tokens


@given(load_shapes(), needs(contexts=st.none()))
def test_the_spare_is_for_sizing_and_not_for_keeping(shape, wanted):
    exactly = replace(shape, context_tokens=wanted.prompt_tokens + reserved_reply(wanted))
    assert suffices(exactly, wanted)
    assert not suffices(replace(exactly, context_tokens=exactly.context_tokens - 1), wanted)


@given(load_shapes(), needs(contexts=st.integers(1, 1 << 18)))
def test_a_requested_context_decides_alone(shape, wanted):
    assert suffices(shape, wanted) is (shape.context_tokens >= wanted.context_tokens)


@given(load_shapes(), needs(contexts=st.none()))
def test_what_was_sized_suffices(shape, wanted):
    assert suffices(replace(shape, context_tokens=needed_context(wanted)), wanted)


@given(needs(contexts=st.none()))
def test_at_least_half_of_the_reply_is_reserved_and_all_of_it_within_the_profile(wanted):
    reply = reserved_reply(wanted)
    assert wanted.reply_tokens / 2 <= reply <= wanted.reply_tokens
    if wanted.prompt_tokens + wanted.reply_tokens + SPARE_TOKENS <= PROFILES[wanted.profile].context_tokens:
        assert reply == wanted.reply_tokens
    elif reply > (wanted.reply_tokens + 1) // 2:
        assert needed_context(wanted) == PROFILES[wanted.profile].context_tokens


@given(needs(contexts=st.none()), st.sampled_from([1, 2, 16]), st.integers(512, 1 << 20))
def test_the_least_context_holds_the_prompt_and_a_small_reply_or_is_the_ceiling(wanted, slots_count, ceiling):
    least = least_context(wanted, slots_count, ceiling)
    assert least <= ceiling
    assert least == ceiling or least >= wanted.prompt_tokens + least_reply(wanted) + SPARE_TOKENS
    assert least <= least_context(wanted, slots_count + 1, ceiling)


@given(st.integers(1, 1 << 24), st.integers(256, 1 << 24))
def test_snapping_down_never_exceeds_what_there_is_nor_falls_below_the_floor(tokens, floor):
    snapped = snap_down(tokens, floor)
    assert snapped >= floor
    assert snapped <= max(tokens, floor)


@given(st.integers(0, 1 << 26), st.integers(0, 1000), ratios)
def test_an_estimate_is_never_below_the_lower_bound(prompt_bytes, messages_count, tokens_per_byte):
    estimate = estimate_prompt_tokens(prompt_bytes, messages_count, tokens_per_byte)
    assert estimate >= least_prompt_tokens(prompt_bytes)
    assert estimate >= prompt_bytes * tokens_per_byte
    assert estimate > messages_count or messages_count == 0


@given(st.integers(0, 1 << 26), st.integers(0, 1 << 26), st.integers(0, 100), ratios)
def test_a_longer_prompt_is_never_estimated_shorter(one, other, messages_count, tokens_per_byte):
    shorter, longer = sorted((one, other))
    assert estimate_prompt_tokens(shorter, messages_count, tokens_per_byte) <= estimate_prompt_tokens(
        longer, messages_count, tokens_per_byte
    )


def test_a_prompt_of_twenty_megabytes_can_be_refused_unseen():
    assert least_prompt_tokens(20_000_000) == 156_250


@given(st.one_of(st.none(), ratios), st.integers(0, 1 << 26), st.integers(0, 1 << 26), st.integers(0, 100))
def test_what_is_learned_stays_a_share_of_a_byte(known, prompt_bytes, prompt_tokens, messages_count):
    assert 0 < learn_tokens_per_byte(known, prompt_bytes, prompt_tokens, messages_count) <= 1


@given(st.one_of(st.none(), ratios), st.integers(0, LEAST_LEARNABLE_BYTES - 1), st.integers(0, 1 << 20))
def test_short_prompts_teach_nothing(known, prompt_bytes, prompt_tokens):
    assert learn_tokens_per_byte(known, prompt_bytes, prompt_tokens) == (known or DEFAULT_TOKENS_PER_BYTE)


@given(st.one_of(st.none(), ratios), learnable_bytes, st.integers(0, 50), st.data())
def test_after_learning_the_same_prompt_is_not_underestimated(known, prompt_bytes, messages_count, data):
    prompt_tokens = data.draw(st.integers(1, prompt_bytes))
    learned = learn_tokens_per_byte(known, prompt_bytes, prompt_tokens, messages_count)
    # A float has 53 bits: allow the last token of a product of that size.
    assert estimate_prompt_tokens(prompt_bytes, messages_count, learned) >= prompt_tokens - 1


@given(st.floats(1 / LONGEST_TOKEN_BYTES, 1), learnable_bytes, st.data())
def test_it_rises_at_once_and_falls_slowly(known, prompt_bytes, data):
    prompt_tokens = data.draw(st.integers(least_prompt_tokens(prompt_bytes), prompt_bytes))
    seen = prompt_tokens / prompt_bytes
    learned = learn_tokens_per_byte(known, prompt_bytes, prompt_tokens)
    if seen >= known:
        assert learned == seen
    else:
        assert seen <= learned <= known
        assert learned >= known * 0.87


def test_it_arrives_where_the_model_is():
    known = None
    for _ in range(60):
        known = learn_tokens_per_byte(known, 4000, 1000)
    assert known == pytest.approx(0.25, abs=0.001)
