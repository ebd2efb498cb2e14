"""A request that nobody has counted: run on what is loaded, and grow once where even the reply is too long."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.plan import PlanAction
from autotuned.policy.plan import plan, plan_optimistically
from tests.examples import POCKET, counted, estimated, situation

LOADED = situation(POCKET, plan(counted(15), situation()).shape)


def test_an_estimate_is_taken_to_fit_what_is_loaded():
    assert plan(estimated(5000), LOADED).action is PlanAction.GROW
    assert plan_optimistically(estimated(5000), LOADED).action is PlanAction.REUSE


def test_where_the_reply_alone_is_too_long_the_estimate_counts():
    need = replace(estimated(2000), reply_tokens=4096)
    grown = plan_optimistically(need, LOADED)
    assert grown.action is PlanAction.GROW
    assert grown.shape.context_tokens >= 2000 + 4096


def test_a_model_that_is_at_its_largest_runs_whatever_the_estimate_says():
    full = replace(LOADED, loaded=replace(LOADED.loaded, context_tokens=8192))
    assert plan_optimistically(estimated(100_000, reply_tokens=9000), full).action is PlanAction.REUSE


@given(st.integers(0, 7000))
def test_an_exact_count_an_override_and_a_first_load_are_planned_as_they_are(tokens):
    for need, state in (
        (counted(tokens), LOADED),
        (replace(estimated(tokens), context_tokens=8192), LOADED),
        (estimated(tokens), situation()),
    ):
        assert plan_optimistically(need, state) == plan(need, state)
