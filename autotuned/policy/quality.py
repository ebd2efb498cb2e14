"""How good a model is at a use, as far as the registry tells: one number, 0 to 100.

``recommend`` scores with it. The registry has a score over many tests and places among the models that were
tested alike; both are joined on the scale of the score. Invariant: a better place, or a better score, never
makes a model worse.
"""

from __future__ import annotations

from autotuned.core.registry import Rank, RegistryModel
from autotuned.policy.use_cases import Demand

# What the first and the last among the tested models score: it turns a place into a score.
LOWEST_SCORE = 30.0
HIGHEST_SCORE = 77.0
# What a model that nobody would use scores: differences count from here.
USELESS_SCORE = 30.0
# What nobody has tested at a kind of task may be worse at it than over all: so many points are taken off.
UNTESTED_POINTS = 2.0
# A place among few says little.
FEWEST_RANKED = 20
# Share of a model's quality that a quantisation keeps: its perplexity before by that after, between those of
# Llama 3 8B (Q4_K_M 0.973, Q3_K_M 0.905, Q2_K 0.64) and of Llama 2 70B (0.988, 0.955, 0.92), which llama.cpp
# publishes in tools/perplexity/README.md. What is not listed is taken as Q4.
KEPT_RATIOS = (
    ("F32", 1.0),
    ("F16", 1.0),
    ("BF16", 1.0),
    ("8BIT", 1.0),
    ("Q8", 1.0),
    ("Q6", 0.995),
    ("MXFP4", 0.99),
    ("Q5", 0.99),
    ("Q4", 0.98),
    ("IQ4", 0.975),
    ("Q3", 0.94),
    ("IQ3", 0.93),
    ("Q2", 0.85),
    ("IQ2", 0.82),
)
USUAL_RATIO = 0.98


def quality_of(model: RegistryModel, demand: Demand) -> float | None:
    """Its quality for this use; None where nobody scored it."""
    place_score = _score_of(rank_of(model, demand))
    if model.overall_score is None:
        return place_score
    if place_score is None:
        return max(model.overall_score - UNTESTED_POINTS, 0.0)
    return (model.overall_score + place_score) / 2


def rank_of(model: RegistryModel, demand: Demand) -> Rank | None:
    """Its place at this kind of task, where enough models have one."""
    rank = model.ranks.get(demand.rank)
    return rank if rank and rank.models_count >= FEWEST_RANKED else None


def worth(quality: float, quantization: str) -> float:
    """Quality above a useless model's, less what the quantisation costs; never negative."""
    return max(quality - USELESS_SCORE, 0.0) * kept_ratio(quantization)


def kept_ratio(quantization: str) -> float:
    """Share of its quality that a model keeps in this quantisation."""
    name = quantization.upper()
    return next((ratio for start, ratio in KEPT_RATIOS if name.startswith(start)), USUAL_RATIO)


def _score_of(rank: Rank | None) -> float | None:
    if rank is None:
        return None
    ahead_ratio = (rank.models_count - rank.place) / max(rank.models_count - 1, 1)
    return LOWEST_SCORE + (HIGHEST_SCORE - LOWEST_SCORE) * ahead_ratio
