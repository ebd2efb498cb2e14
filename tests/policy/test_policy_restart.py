"""The back-off after crashes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autotuned.policy.restart import LONGEST_DELAY_SECONDS, crashes_in_a_row, delay_seconds


def test_the_first_crash_costs_no_wait_and_then_it_doubles():
    assert [delay_seconds(crashes) for crashes in range(6)] == [0.0, 0.0, 0.5, 1.0, 2.0, 4.0]


@given(st.integers(0, 10_000))
def test_the_wait_never_falls_and_is_bounded(crashes):
    assert delay_seconds(crashes) <= delay_seconds(crashes + 1) <= LONGEST_DELAY_SECONDS


def test_a_worker_that_lived_for_a_minute_starts_the_count_anew():
    assert crashes_in_a_row(5, 59.9) == 6
    assert crashes_in_a_row(5, 60.0) == 1
