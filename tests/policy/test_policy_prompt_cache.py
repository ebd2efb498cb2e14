import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.memory import PressureTier
from autotuned.policy.prompt_cache import host_prompt_cache_bytes
from tests.strategies import pressures

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("share", "left_bytes", "budget"),
    [
        (0.1, 10 * GIB, GIB),
        (0.1, 1000 * GIB, 8 * GIB),
        (0.1, 160 * MIB, 16 * MIB),
        (0.1, 159 * MIB, 0),
        (0.5, 33 * MIB + 2, 16 * MIB),
        (0.0, 1000 * GIB, 0),
        (0.9, -GIB, 0),
    ],
)
def test_a_share_of_what_is_left(share, left_bytes, budget):
    assert host_prompt_cache_bytes(share, left_bytes, PressureTier.NORMAL) == budget


@given(st.floats(0, 0.9), st.integers(-GIB, 1000 * GIB), pressures)
def test_it_takes_whole_mebibytes_of_what_is_left_and_nothing_under_pressure(share, left_bytes, pressure):
    budget = host_prompt_cache_bytes(share, left_bytes, pressure)
    assert budget % MIB == 0
    assert 0 <= budget <= max(left_bytes, 0)
    assert budget == 0 or pressure is PressureTier.NORMAL
