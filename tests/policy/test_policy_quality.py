"""One number for how good a model is at a use, of scores and places."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from autotuned.core.registry import Rank
from autotuned.policy.quality import (
    FEWEST_RANKED,
    HIGHEST_SCORE,
    LOWEST_SCORE,
    UNTESTED_POINTS,
    kept_ratio,
    quality_of,
    rank_of,
    worth,
)
from autotuned.policy.use_cases import DEMANDS, UseCase
from tests.policy.invented import model

CODING = DEMANDS[UseCase.CODING]


def scored(overall=None, place=None, count=100):
    ranks = {} if place is None else {"coding": Rank(place, count)}
    return model("m", score=overall, ranks=ranks)


def test_score_and_place_count_alike():
    assert quality_of(scored(60, place=1), CODING) == (60 + HIGHEST_SCORE) / 2
    assert quality_of(scored(60, place=100), CODING) == (60 + LOWEST_SCORE) / 2


def test_a_place_alone_is_a_score():
    assert quality_of(scored(place=1), CODING) == HIGHEST_SCORE
    assert quality_of(scored(place=100), CODING) == LOWEST_SCORE


def test_what_nobody_tested_at_the_use_is_trusted_a_little_less():
    assert quality_of(scored(60), CODING) == 60 - UNTESTED_POINTS
    assert quality_of(scored(0), CODING) == 0
    elsewhere = replace(scored(60), ranks={"math": Rank(1, 100)})
    assert quality_of(elsewhere, CODING) == 60 - UNTESTED_POINTS


def test_what_nobody_scored_has_no_quality():
    assert quality_of(scored(), CODING) is None


def test_a_place_among_few_says_nothing():
    assert rank_of(scored(place=1, count=FEWEST_RANKED - 1), CODING) is None
    assert rank_of(scored(place=1, count=FEWEST_RANKED), CODING) == Rank(1, FEWEST_RANKED)
    assert quality_of(scored(place=1, count=FEWEST_RANKED - 1), CODING) is None


@given(
    st.one_of(st.none(), st.floats(0, 100)),
    st.one_of(st.none(), st.integers(1, 100)),
    st.floats(0, 100),
    st.integers(0, 99),
)
def test_a_better_score_or_place_never_makes_a_model_worse(overall, place, more, fewer):
    before = quality_of(scored(overall, place), CODING)
    better = quality_of(
        scored(
            None if overall is None else min(overall + more, 100),
            None if place is None else max(place - fewer, 1),
        ),
        CODING,
    )
    assert (before is None) is (better is None)
    if before is not None:
        assert 0 <= before <= better <= 100


def test_the_stronger_the_quantization_the_less_is_kept():
    names = ["BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XS", "Q2_K", "IQ2_XXS"]
    kept = [kept_ratio(name) for name in names]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 1.0
    assert len(set(kept)) > 6


@pytest.mark.parametrize("name", ["", "4bit", "UD-Q4_K_XL", "what"])
def test_what_is_not_listed_is_taken_as_four_bits(name):
    assert kept_ratio(name) == kept_ratio("q4_k_m")


@given(st.floats(0, 100), st.text(max_size=10))
def test_worth_is_never_negative_nor_more_than_the_quality(quality, quantization):
    assert 0 <= worth(quality, quantization) <= quality


def test_every_use_has_a_demand_and_a_context():
    assert set(DEMANDS) == set(UseCase)
    assert all(demand.context_tokens >= 4096 for demand in DEMANDS.values())
