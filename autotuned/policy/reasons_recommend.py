"""The sentences in which recommendations explain themselves.

``recommend`` calls. Invariant: each text is one line of plain words with the numbers that decided, and what
was estimated is called an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotuned.core.plan import Reason
from autotuned.core.registry import RegistryModel
from autotuned.policy.places import GPU_UNUSED, PlaceBudget, not_now
from autotuned.policy.quality import rank_of
from autotuned.policy.recommendation import Recommendation, is_permissive
from autotuned.policy.use_cases import DEMANDS, UseCase
from autotuned.policy.wording import listed, size

SLOW_RATIO = 0.5


def of_pick(
    pick: Recommendation,
    best: Recommendation,
    use_case: UseCase,
    *,
    missed: tuple[RegistryModel, int] | None,
    suited: Sequence[Recommendation],
) -> tuple[Reason, ...]:
    """Why it was chosen; of the best also why no better one was."""
    found = [_quality(pick, use_case), _fit(pick), *_speed(pick)]
    if pick is best:
        found += _slower_ones(pick, suited)
        if missed is not None:
            found.append(_too_large(*missed))
    else:
        found.append(_against(pick, best))
    return (*found, *_now(pick))


def of_all(budgets: Sequence[PlaceBudget], *, picks: Sequence[Recommendation]) -> tuple[Reason, ...]:
    """What holds for all: how speed is estimated, what license to read, which memory lies idle."""
    found = list(_idle(budgets))
    restricted = [pick for pick in picks if not is_permissive(pick.model.license)]
    if restricted:
        names = listed([f"{pick.model.name} ({pick.model.license or 'unknown'})" for pick in restricted])
        found.append(Reason("license", f"Read the license before other than private use: {names}."))
    if any(pick.tokens_per_second for pick in picks):
        found.append(
            Reason(
                "estimate",
                "Speeds are estimates from memory bandwidth and the weights that compute a token, for the "
                "beginning of a conversation.",
            )
        )
    elif picks:
        found.append(
            Reason(
                "bandwidth-unknown",
                "Speeds cannot be estimated: the bandwidth of the memory is unknown. It was taken to be low.",
            )
        )
    return tuple(dict.fromkeys(found))


def of_none(budgets: Sequence[PlaceBudget], smallest: tuple[RegistryModel, int] | None) -> tuple[Reason, ...]:
    """Why nothing is recommended: what the smallest would need, which memory lies idle."""
    found = []
    if smallest is not None:
        model, required_bytes = smallest
        found.append(
            Reason("smallest", f"The smallest of them, {model.name}, would need {size(required_bytes)}.")
        )
    return (*found, *_idle(budgets))


def _idle(budgets: Sequence[PlaceBudget]) -> tuple[Reason, ...]:
    return tuple(why for budget in budgets for why in budget.reasons if why == GPU_UNUSED)


def _quality(pick: Recommendation, use_case: UseCase) -> Reason:
    model, parts = pick.model, []
    if model.overall_score is not None:
        parts.append(f"scores {model.overall_score:.0f} of 100 over many tests")
    rank = rank_of(model, DEMANDS[use_case])
    if rank is not None:
        parts.append(f"is number {rank.place:,} of {rank.models_count:,} models at {DEMANDS[use_case].rank}")
    return Reason("quality", f"It {listed(parts)}.")


def _fit(pick: Recommendation) -> Reason:
    footprint = pick.footprint
    state = size(footprint.kv_cache_bytes)
    cache = " in Q8_0" if pick.smaller_cache else ""
    text = (
        f"It takes {size(footprint.total_bytes)} of the {size(pick.budget.capacity_bytes)} that a model may "
        f"take of {pick.budget.name}: {state} of it for {pick.context_tokens:,} tokens of context{cache}."
    )
    return Reason("fit", text)


def _speed(pick: Recommendation) -> list[Reason]:
    if not pick.tokens_per_second:
        return []
    model = pick.model
    text = f"It answers at about {rate(pick.tokens_per_second)}, by estimate"
    if model.active_parameters_count < model.parameters_count:
        active, total = _billions(model.active_parameters_count), _billions(model.parameters_count)
        text += f": a token takes {active} of its {total} billion parameters"
    return [Reason("speed", f"{text}.")]


def _slower_ones(best: Recommendation, suited: Sequence[Recommendation]) -> list[Reason]:
    """The best of those that fit and are better, and too slow for it."""
    better = [each for each in suited if each.quality > best.quality and each.tokens_per_second]
    if not better or not best.tokens_per_second:
        return []
    finest = max(better, key=lambda each: each.quality)
    if finest.tokens_per_second > SLOW_RATIO * best.tokens_per_second:
        return []
    text = f"{finest.model.name} fits, too, and is better, but would answer at about "
    return [Reason("slower", f"{text}{rate(finest.tokens_per_second)}.")]


def _too_large(model: RegistryModel, required_bytes: int) -> Reason:
    return Reason("too-large", f"The next better one, {model.name}, would need {size(required_bytes)}.")


def _against(pick: Recommendation, best: Recommendation) -> Reason:
    """What an alternative has over the best, or lacks."""
    parts = []
    if pick.model.publisher != best.model.publisher:
        parts.append(f"comes from {pick.model.publisher}")
    if pick.tokens_per_second and best.tokens_per_second:
        ratio = pick.tokens_per_second / best.tokens_per_second
        if ratio >= 1.1:  # noqa: PLR2004 - a tenth is the least that anybody notices
            parts.append(f"is about {ratio:.1f} times as fast")
        elif ratio <= 0.9:  # noqa: PLR2004 - the same
            parts.append(f"is slower (about {rate(pick.tokens_per_second)})")
    lighter = best.footprint.total_bytes - pick.footprint.total_bytes
    if lighter >= best.footprint.total_bytes // 10:
        parts.append(f"takes {size(lighter)} less memory")
    elif -lighter >= best.footprint.total_bytes // 10:
        parts.append(f"takes {size(-lighter)} more memory")
    if not parts:
        parts.append("scores a little less")
    return Reason("alternative", f"Against {best.model.name} it {listed(parts)}.")


def _now(pick: Recommendation) -> list[Reason]:
    is_room = pick.footprint.total_bytes <= pick.budget.available_bytes
    return [] if is_room else [not_now(pick.budget)]


def rate(tokens_per_second: float) -> str:
    """For example "31 tokens/s"; below ten with one decimal."""
    digits = 1 if tokens_per_second < 10 else 0  # noqa: PLR2004 - two digits that count
    return f"{tokens_per_second:.{digits}f} tokens/s"


def _billions(count: int) -> str:
    return f"{count / 1e9:.1f}".removesuffix(".0")
