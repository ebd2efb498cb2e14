from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.memory import MemoryReading, PressureTier
from autotuned.policy.pressure import ENTERED_AT_PERCENT, HEADROOM_PERCENT, next_tier, used_percent
from tests.strategies import pressures, readings

NORMAL, ELEVATED, HIGH, CRITICAL = PressureTier


def used(permille: int) -> MemoryReading:
    """A machine of which so many thousandths are in use."""
    return MemoryReading(
        total_bytes=1000 << 20,
        available_bytes=(1000 - permille) << 20,
        swap_total_bytes=0,
        swap_free_bytes=0,
    )


def quiet(reading):
    """The reading without what raises a tier beside the use of memory."""
    return replace(reading, stalled_ratio=None, os_pressure_level=None)


@pytest.mark.parametrize(
    ("permille", "tier"),
    [
        (0, NORMAL),
        (799, NORMAL),
        (800, ELEVATED),
        (879, ELEVATED),
        (880, HIGH),
        (929, HIGH),
        (930, CRITICAL),
        (1000, CRITICAL),
    ],
)
def test_a_tier_is_entered_at_its_threshold(permille, tier):
    assert next_tier(NORMAL, used(permille)) is tier


@pytest.mark.parametrize(
    ("before", "permille", "tier"),
    [
        (ELEVATED, 770, ELEVATED),
        (ELEVATED, 769, NORMAL),
        (HIGH, 850, HIGH),
        (HIGH, 849, ELEVATED),
        (HIGH, 769, NORMAL),
        (CRITICAL, 900, CRITICAL),
        (CRITICAL, 899, HIGH),
        (CRITICAL, 849, ELEVATED),
    ],
)
def test_a_tier_is_left_three_points_lower(before, permille, tier):
    assert next_tier(before, used(permille)) is tier


@given(pressures, st.sampled_from(list(ENTERED_AT_PERCENT.values())), st.data())
def test_a_reading_that_wavers_within_three_points_changes_the_tier_at_most_once(before, percent, data):
    low, high = percent * 10 - 15, percent * 10 + 14
    wavering = data.draw(st.lists(st.integers(low, high), min_size=2, max_size=40))
    tiers = [next_tier(before, used(wavering[0]))]
    for permille in wavering[1:]:
        tiers.append(next_tier(tiers[-1], used(permille)))
    assert sum(one is not other for one, other in pairwise(tiers)) <= 1


@given(pressures, st.integers(0, 1000), st.integers(0, 1000))
def test_less_memory_in_use_never_raises_the_tier(before, one, other):
    less, more = sorted((one, other))
    assert next_tier(before, used(less)) <= next_tier(before, used(more))


@given(pressures, readings())
def test_a_steady_reading_gives_a_steady_tier(before, reading):
    tier = next_tier(before, reading)
    assert next_tier(tier, reading) is tier


@given(pressures, readings())
def test_stalls_and_the_system_only_raise(before, reading):
    assert next_tier(before, reading) >= next_tier(before, quiet(reading))


@pytest.mark.parametrize(
    ("before", "ratio", "tier"),
    [
        (NORMAL, 0.09, NORMAL),
        (NORMAL, 0.10, HIGH),
        (HIGH, 0.06, HIGH),
        (HIGH, 0.04, NORMAL),
        (CRITICAL, 0.5, HIGH),
    ],
)
def test_processes_that_wait_for_memory(before, ratio, tier):
    assert next_tier(before, replace(used(500), stalled_ratio=ratio)) is tier


@pytest.mark.parametrize(("level", "tier"), [(None, NORMAL), (1, NORMAL), (2, HIGH), (4, CRITICAL)])
def test_what_macos_says(level, tier):
    assert next_tier(NORMAL, replace(used(500), os_pressure_level=level)) is tier


def test_memory_of_unknown_size_is_calm():
    unknown = replace(used(500), total_bytes=0, available_bytes=0)
    assert next_tier(NORMAL, unknown) is NORMAL
    assert used_percent(unknown) == 0


def test_headroom_by_tier():
    assert [HEADROOM_PERCENT[tier] for tier in PressureTier] == [100, 90, 75, 50]
    assert used_percent(used(885)) == 88
