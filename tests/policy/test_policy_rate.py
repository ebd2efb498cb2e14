"""How fast a download goes, from its latest samples."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from autotuned.policy.rate import WINDOW_SECONDS, Sample, bytes_per_second, kept, left_seconds


def after(*samples):
    held: tuple[Sample, ...] = ()
    for sample in samples:
        held = kept(held, Sample(*sample))
    return held


def test_the_rate_is_that_of_the_window():
    steady = after(*((second, 1000 * second) for second in range(5)))
    assert bytes_per_second(steady) == 1000
    faster = after(*((second, 1000 * second) for second in range(20)), (20, 29_000))
    assert bytes_per_second(faster) == (29_000 - 12_000) // 8


def test_too_little_time_tells_nothing():
    assert bytes_per_second(()) == 0
    assert bytes_per_second(after((0, 0), (0.1, 10_000))) == 0
    assert left_seconds(after((0, 0), (0.1, 10_000)), 20_000) is None


def test_the_time_left_follows_from_the_rate():
    steady = after((0, 0), (2, 2000))
    assert left_seconds(steady, 10_000) == 8
    assert left_seconds(steady, 1500) == 0
    assert left_seconds(steady, 0) is None


def test_a_pause_makes_the_rate_fall_until_nobody_can_tell():
    running = [(second, 1000 * second) for second in range(5)]
    rates = [bytes_per_second(after(*running, (4 + pause, 4000))) for pause in (0, 1, 3, 8, 20)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 1000
    assert rates[-1] == 0


def test_bytes_that_were_thrown_away_begin_anew():
    held = after((0, 0), (1, 1000), (2, 500))
    assert held == (Sample(2, 500),)
    assert bytes_per_second(held) == 0


samples = st.lists(st.tuples(st.floats(0, 20), st.integers(0, 1 << 40)), max_size=20)


@given(samples, st.integers(0, 1 << 41))
def test_no_rate_is_negative_and_no_sample_older_than_the_window(steps, total):
    held: tuple[Sample, ...] = ()
    seconds = 0.0
    for pause, done in steps:
        seconds += pause
        held = kept(held, Sample(seconds, done))
        assert held[-1] == Sample(seconds, done)
        assert held[-1].seconds - held[0].seconds <= WINDOW_SECONDS
        assert bytes_per_second(held) >= 0
        left = left_seconds(held, total)
        assert left is None or left >= 0
