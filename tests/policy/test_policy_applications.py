"""What closing an application gains."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given

from autotuned.core.hardware import Application
from autotuned.core.plan import Fit, FitClass
from autotuned.policy.applications import closings
from tests.policy.invented import GIB


def application(name, gib):
    return Application(name=name, processes_count=3, memory_bytes=int(gib * GIB))


def fit(required_gib, available_gib=4.0, fit_class=FitClass.SWAP_RISK):
    return Fit(
        fit_class=fit_class,
        required_bytes=int(required_gib * GIB),
        available_bytes=int(available_gib * GIB),
        safe_context_tokens=0,
    )


def enabled(applications, fits, *, capacity_gib=16):
    found = closings(applications, fits, margin_bytes=GIB, capacity_bytes=capacity_gib * GIB)
    return [(each.application.name, each.enabled_models) for each in found]


def test_the_largest_comes_first():
    found = enabled([application("small", 1), application("large", 3), application("middle", 2)], [])
    assert found == [("large", ()), ("middle", ()), ("small", ())]


def test_a_model_is_enabled_when_it_leaves_the_margin_free():
    applications = [application("browser", 3), application("editor", 2)]
    fits = [("five", fit(5)), ("six", fit(6)), ("nine", fit(9))]
    assert enabled(applications, fits) == [("browser", ("five", "six")), ("editor", ("five",))]


def test_a_model_that_fits_already_is_enabled_by_nothing():
    assert enabled([application("browser", 3)], [("m", fit(1, fit_class=FitClass.SAFE))]) == [("browser", ())]


def test_one_that_cuts_the_margin_may_be_safe_then():
    assert enabled([application("browser", 3)], [("m", fit(3.5, fit_class=FitClass.MARGINAL))]) == [
        ("browser", ("m",))
    ]


def test_what_the_machine_never_lets_a_model_take_no_closing_gives():
    """A Mac bounds what its GPU may wire, whatever is free."""
    assert enabled([application("browser", 5)], [("m", fit(6))], capacity_gib=5) == [("browser", ())]


@given(
    st.lists(st.floats(0, 32), max_size=4),
    st.lists(st.tuples(st.floats(0, 64), st.floats(0, 64), st.sampled_from(FitClass)), max_size=4),
)
def test_larger_applications_enable_all_that_smaller_ones_do(gibs, drawn):
    fits = [(str(index), fit(*each)) for index, each in enumerate(drawn)]
    found = enabled([application(str(index), gib) for index, gib in enumerate(gibs)], fits)
    assert len(found) == len(gibs)
    for (_, more), (_, less) in pairwise(found):
        assert set(less) <= set(more)
