from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.chat import ProfileName
from autotuned.core.learning import Learned
from autotuned.core.memory import PressureTier
from autotuned.policy.headroom import expected_context, other_slots, under_pressure
from autotuned.policy.plan import plan
from autotuned.policy.sizing import BUCKETS
from tests.examples import POCKET, counted, situation
from tests.strategies import pressures

contexts = st.integers(256, 1 << 20)


@pytest.mark.parametrize(
    ("context", "least", "pressure", "left"),
    [
        (8192, 1024, PressureTier.NORMAL, 8192),
        (8192, 1024, PressureTier.ELEVATED, 6144),
        (8192, 1024, PressureTier.HIGH, 6144),
        (8192, 1024, PressureTier.CRITICAL, 4096),
        (6144, 512, PressureTier.ELEVATED, 4096),
        (8192, 7680, PressureTier.CRITICAL, 7680),
        (768, 768, PressureTier.CRITICAL, 768),
    ],
)
def test_what_pressure_leaves(context, least, pressure, left):
    assert under_pressure(context, least, pressure) == left


@given(contexts, contexts, pressures)
def test_pressure_always_takes_some_of_the_headroom_and_nothing_else(one, other, pressure):
    least, context = sorted((one, other))
    left = under_pressure(context, least, pressure)
    assert least <= left <= context
    if pressure is PressureTier.NORMAL or least == context:
        assert left == context
    else:
        assert left < context
        assert left in BUCKETS or left == least


@given(contexts, contexts, st.integers(0, 1 << 20), pressures)
def test_more_pressure_and_smaller_contexts_leave_no_more(one, other, more, pressure):
    least, context = sorted((one, other))
    left = under_pressure(context, least, pressure)
    assert left <= under_pressure(context + more, least, pressure)
    for calmer in range(pressure):
        assert left <= under_pressure(context, least, PressureTier(calmer))


def test_other_slots_get_what_requests_usually_need_within_the_profile():
    fast = replace(counted(15), profile=ProfileName.FAST)
    usual = Learned(usual_context_tokens=5000)
    assert other_slots(counted(15), situation(), 1) == 0
    assert other_slots(counted(15), situation(), 4) == 3 * 512
    assert other_slots(counted(15), situation(learned=usual), 4) == 3 * 5000
    assert other_slots(fast, situation(learned=usual), 4) == 3 * 2048


def test_what_is_expected_of_a_load_and_of_a_growth():
    usual = Learned(usual_context_tokens=5000)
    agent = replace(counted(15), session_tokens=4000)
    loaded = plan(counted(15), situation()).shape
    assert expected_context(counted(15), situation()) == 0
    assert expected_context(agent, situation()) == 4256
    assert expected_context(agent, situation(learned=usual)) == 5256
    assert expected_context(agent, situation(POCKET, loaded, learned=usual)) == 4256
    assert expected_context(counted(15), situation(POCKET, loaded, learned=usual)) == 3072
