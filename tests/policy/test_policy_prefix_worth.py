"""What a KV prefix is worth: saving, restoring, making room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.core.prefix import SavedPrefix
from autotuned.policy.kv import kv_cache_bytes
from autotuned.policy.prefix_worth import (
    HALF_LIFE_SECONDS,
    READ_BYTES_PER_SECOND,
    expired,
    is_worth_a_checkpoint,
    is_worth_restoring,
    is_worth_saving,
    kept_promise,
    recompute_seconds,
    state_bytes,
    to_evict,
)
from tests.engines.shapes import SHAPE
from tests.examples import LLAMA_3_1_8B, POCKET

NOW = 1_000_000.0


def saved(name="a", *, tokens=1000, bytes_count=1_000_000, seconds=10.0, used_at=NOW):
    return SavedPrefix(
        id=name,
        model_id="pocket",
        file_name=f"{name}.kv",
        boundaries=("b",),
        boundary_tokens=(tokens,),
        tokens_count=tokens,
        bytes_count=bytes_count,
        sha256="",
        prefill_seconds=seconds,
        created_at=used_at,
        last_used_at=used_at,
    )


collections = st.lists(
    st.builds(
        lambda size, seconds, age: saved(bytes_count=size, seconds=seconds, used_at=NOW - age),
        st.integers(0, 1000),
        st.floats(0, 100),
        st.floats(0, 10 * HALF_LIFE_SECONDS),
    ),
    max_size=12,
).map(lambda found: [replace(each, id=str(number)) for number, each in enumerate(found)])


@settings(deadline=None)
@given(collections, st.integers(0, 5000))
def test_what_stays_is_within_the_cap_and_nothing_leaves_in_vain(everything, cap):
    leaving = to_evict(everything, cap, NOW)
    assert len(set(leaving)) == len(leaving)
    staying = [each for each in everything if each.id not in leaving]
    assert sum(each.bytes_count for each in staying) <= cap
    if leaving:
        last = next(each for each in everything if each.id == leaving[-1])
        assert sum(each.bytes_count for each in staying) + last.bytes_count > cap


@settings(deadline=None)
@given(collections, st.integers(0, 5000))
def test_the_least_worth_leaves_first(everything, cap):
    def worth(each):
        return (
            each.prefill_seconds
            * 2 ** -((NOW - each.last_used_at) / HALF_LIFE_SECONDS)
            / max(each.bytes_count, 1)
        )

    leaving = set(to_evict(everything, cap, NOW))
    could_stay = [each for each in everything if each.bytes_count <= cap]
    for gone in (each for each in could_stay if each.id in leaving):
        for kept in (each for each in could_stay if each.id not in leaving):
            assert worth(gone) <= worth(kept) * (1 + 1e-9)


def test_what_is_too_large_by_itself_pushes_nothing_else_out():
    assert to_evict(
        [saved("giant", bytes_count=500, seconds=1e9), saved("small", bytes_count=90)], 100, NOW
    ) == ("giant",)


def test_disuse_outweighs_some_worth():
    fresh, stale = (
        saved("fresh", seconds=3.0),
        saved("stale", seconds=10.0, used_at=NOW - 2 * HALF_LIFE_SECONDS),
    )
    assert to_evict([fresh, stale], 1_500_000, NOW) == ("stale",)


def test_those_that_nobody_used_for_long_expire():
    everything = [saved("old", used_at=NOW - 101), saved("new", used_at=NOW - 99)]
    assert expired(everything, 100, NOW) == ("old",)


def test_a_state_is_as_large_as_its_part_of_the_cache():
    assert state_bytes(LLAMA_3_1_8B, SHAPE, 1000) == 1000 * (128 * 1024 + 4)
    four = replace(SHAPE, slots_count=4)
    assert state_bytes(POCKET, four, 2048) == 2048 * 4 + kv_cache_bytes(POCKET, four) // 4
    assert state_bytes(POCKET, replace(four, kv_unified=True), 2048) == state_bytes(POCKET, four, 2048)


def test_recomputing_costs_what_it_cost():
    known = recompute_seconds(
        tokens_count=1100, evaluated_tokens=100, prefill_seconds=1.0, known_seconds_per_token=0.02
    )
    assert known == pytest.approx(21.0)
    fresh = recompute_seconds(
        tokens_count=1100, evaluated_tokens=1000, prefill_seconds=5.0, known_seconds_per_token=0.0
    )
    assert fresh == pytest.approx(5.5)
    nothing = recompute_seconds(
        tokens_count=10, evaluated_tokens=0, prefill_seconds=0.0, known_seconds_per_token=0.0
    )
    assert nothing == 0.0


@pytest.mark.parametrize(
    ("changes", "matched", "live", "worth"),
    [
        ({}, 1000, 0, True),
        ({}, 63, 0, False),  # too few
        ({}, 1000, 940, False),  # most of it is in the engine
        ({"bytes_count": int(11 * READ_BYTES_PER_SECOND)}, 1000, 0, False),  # reading takes longer
        ({"bytes_count": int(6 * READ_BYTES_PER_SECOND)}, 500, 0, False),  # for the half that is of use
        ({"tokens": 2048}, 1000, 0, False),  # does not fit into the context
    ],
)
def test_restoring_must_beat_computing(changes, matched, live, worth):
    found = is_worth_restoring(
        saved(**changes), matched_tokens=matched, live_tokens=live, context_tokens=2048
    )
    assert found is worth


@settings(deadline=None)
@given(st.integers(1, 100_000), st.integers(0, 100_000), st.floats(0, 1000), st.integers(0, 1 << 33))
def test_a_checkpoint_is_never_worth_more_than_a_rescue(tokens, saved_tokens, seconds, size):
    state = {
        "tokens_count": tokens,
        "saved_tokens": saved_tokens,
        "prefill_seconds": seconds,
        "bytes_count": size,
    }
    if is_worth_a_checkpoint(**state):
        assert is_worth_saving(**state)
    if is_worth_saving(**state):
        prefix = saved(tokens=tokens, bytes_count=size, seconds=seconds)
        assert is_worth_restoring(prefix, matched_tokens=tokens, live_tokens=0, context_tokens=tokens + 1)


def test_a_few_new_tokens_do_not_rewrite_a_large_state():
    state = {"tokens_count": 20_100, "prefill_seconds": 100.0, "bytes_count": 2_600_000_000}
    assert not is_worth_a_checkpoint(**state, saved_tokens=20_000)
    assert is_worth_saving(**state, saved_tokens=20_000)
    assert is_worth_a_checkpoint(**state, saved_tokens=0)
    assert not is_worth_saving(**state, saved_tokens=20_037)


def test_half_of_the_promise_is_kept_or_it_is_a_miss():
    assert kept_promise(100, 50)
    assert not kept_promise(100, 49)
