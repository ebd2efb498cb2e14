"""Which models suit a machine: quality against speed, of what fits with a context that the work fills.

``services.recommend`` asks. What a model is worth is its quality for the use times how far its estimated
speed suits it. Invariant: what is recommended fits into memory that an engine uses, by the planner's own
arithmetic; the first has the highest score, and each has its reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from autotuned.core.hardware import Bandwidth
from autotuned.core.memory import Footprint
from autotuned.core.model import ModelFacts
from autotuned.core.registry import RegistryModel, RegistrySize
from autotuned.policy import reasons_recommend as reasons
from autotuned.policy.places import Place, PlaceBudget
from autotuned.policy.quality import quality_of, worth
from autotuned.policy.recommendation import (
    Circumstances,
    Recommendation,
    Recommendations,
    is_permissive,
)
from autotuned.policy.registry_facts import MLX, facts_of, footprint_at
from autotuned.policy.speed import decode_tokens_per_second, decoding_of
from autotuned.policy.use_cases import DEMANDS, Demand, UseCase

OLLAMA, HUGGING_FACE = "ollama", "huggingface"
PICKS_COUNT = 3
# What is here already need not be fetched, and what may be used for everything needs no lawyer.
INSTALLED_BONUS = 1.03
RESTRICTED_MALUS = 0.97
# Beside a GPU a processor reads prompts so slowly that even a better model has to be much better.
BESIDE_GPU_MALUS = 0.8
# What memory whose bandwidth nobody tells is taken to give where models are compared, and nowhere else: about
# as much as the slowest that is usual does (two channels of DDR4-2400: 38 GB/s; Apple's M1: 68 GB/s; NVIDIA's
# RTX 3050 with 6 GB: 168 GB/s).
SLOW_MEMORY: Mapping[Place, Bandwidth] = MappingProxyType(
    {
        Place.RAM: Bandwidth(bytes_per_second=35 * 10**9),
        Place.UNIFIED: Bandwidth(bytes_per_second=70 * 10**9),
        Place.GPU: Bandwidth(bytes_per_second=150 * 10**9),
    }
)
# An alternative is worth a line when it is at least so much faster, or takes so little of the memory.
FASTER_RATIO = 1.5
SMALLER_RATIO = 0.6


def recommend(
    models: Sequence[RegistryModel], use_case: UseCase, circumstances: Circumstances
) -> Recommendations:
    """The models that suit best, best first."""
    demand = DEMANDS[use_case]
    able = [model for model in models if is_able(model, demand)]
    suited = sorted(
        filter(None, (_best_of(model, demand, circumstances) for model in able)),
        key=lambda each: (-each.score, each.model.id),
    )
    picks = _picks(suited)
    if not picks:
        smallest = _smallest(able, demand, circumstances)
        return Recommendations(picks=(), reasons=reasons.of_none(circumstances.budgets, smallest))
    better = _missed(able, demand, circumstances, picks[0])
    told = tuple(
        replace(
            pick,
            reasons=reasons.of_pick(
                pick, picks[0], use_case, missed=better if index == 0 else None, suited=suited
            ),
        )
        for index, pick in enumerate(picks)
    )
    return Recommendations(picks=told, reasons=reasons.of_all(circumstances.budgets, picks=told))


def is_able(model: RegistryModel, demand: Demand) -> bool:
    """Whether it can do what the use needs, and is known well enough to be recommended."""
    if demand.has_to_think and not model.thinks:
        return False
    if demand.has_to_call_tools and not model.calls_tools:
        return False
    return bool(model.layer_groups) and quality_of(model, demand) is not None


def pull_name_of(model: RegistryModel, size: RegistrySize) -> str:
    """What gets this download, "" where it has no name to get it by."""
    name = model.names.get(size.of, "")
    if not name or size.of == OLLAMA:
        is_named = bool(name) and size == next(each for each in model.sizes if each.of == OLLAMA)
        return name if is_named else ""
    return f"hf:{name}" if size.of == MLX else f"hf:{name}:{size.quantization}"


def _best_of(model: RegistryModel, demand: Demand, circumstances: Circumstances) -> Recommendation | None:
    """Its download and place of the highest score; None where none fits."""
    found = [
        candidate
        for size in model.sizes
        if size.of != MLX and pull_name_of(model, size)
        for budget in _places(size, circumstances)
        if (candidate := _candidate(model, size, budget, demand, circumstances))
    ]
    return max(found, key=lambda each: each.score, default=None)


def _places(size: RegistrySize, circumstances: Circumstances) -> list[PlaceBudget]:
    """Where an engine that would run this download computes."""
    leaves_gpu = size.of in circumstances.beside_gpu
    return [
        budget
        for budget in circumstances.budgets
        if budget.is_used and not (leaves_gpu and budget.place is Place.GPU)
    ]


def _candidate(
    model: RegistryModel,
    size: RegistrySize,
    budget: PlaceBudget,
    demand: Demand,
    circumstances: Circumstances,
) -> Recommendation | None:
    """None where it does not fit there."""
    facts, quality = facts_of(model, size), quality_of(model, demand)
    if facts is None or quality is None:
        return None
    whole, smaller = _footprints(facts, demand, circumstances, budget.place)
    footprint = whole if whole.total_bytes <= budget.capacity_bytes else smaller
    if footprint.total_bytes > budget.capacity_bytes:
        return None
    decoding = decoding_of(model, size.size_bytes)
    speed = decode_tokens_per_second(decoding, budget.place, budget.bandwidth)
    compared = speed or decode_tokens_per_second(decoding, budget.place, SLOW_MEMORY[budget.place])
    name = pull_name_of(model, size)
    installed = circumstances.installed.get(name, "")
    score = worth(quality, size.quantization) * suits(compared, demand, thinks=model.thinks)
    score *= INSTALLED_BONUS if installed else 1.0
    score *= 1.0 if is_permissive(model.license) else RESTRICTED_MALUS
    score *= BESIDE_GPU_MALUS if _is_beside_gpu(budget, circumstances) else 1.0
    return Recommendation(
        model=model,
        size=size,
        pull_name=name,
        budget=budget,
        footprint=footprint,
        context_tokens=_context_of(facts, demand),
        tokens_per_second=speed,
        quality=quality,
        score=min(score, 100.0),
        smaller_cache=footprint is not whole,
        installed_as=installed,
    )


def _is_beside_gpu(budget: PlaceBudget, circumstances: Circumstances) -> bool:
    """Whether a processor would compute while a GPU has nothing to do."""
    return budget.place is Place.RAM and any(
        each.is_used and each.place is Place.GPU for each in circumstances.budgets
    )


def suits(tokens_per_second: float, demand: Demand, *, thinks: bool) -> float:
    """How far a speed suits a use, 0 to 1.

    It falls fast below the half speed, and hardly rises where nobody waits any more.
    """
    speed = tokens_per_second / demand.thinking_ratio if thinks else tokens_per_second
    return speed**2 / (speed**2 + demand.half_speed**2)


def _picks(suited: Sequence[Recommendation]) -> tuple[Recommendation, ...]:
    """The best; the best of another publisher; the best that is much faster or smaller; else the next."""
    if not suited:
        return ()
    best, *others = suited
    picks = [best]
    for wanted in (_of_another(best), _lighter(best), lambda _: True):
        chosen = next((each for each in others if each not in picks and wanted(each)), None)
        if chosen is not None and len(picks) < PICKS_COUNT:
            picks.append(chosen)
    for each in others:
        if len(picks) < PICKS_COUNT and each not in picks:
            picks.append(each)
    return tuple(picks)


def _of_another(best: Recommendation) -> Callable[[Recommendation], bool]:
    return lambda each: each.model.publisher != best.model.publisher


def _lighter(best: Recommendation) -> Callable[[Recommendation], bool]:
    return lambda each: (
        each.tokens_per_second >= FASTER_RATIO * best.tokens_per_second > 0
        or each.footprint.total_bytes <= SMALLER_RATIO * best.footprint.total_bytes
    )


def _missed(
    able: Sequence[RegistryModel], demand: Demand, circumstances: Circumstances, best: Recommendation
) -> tuple[RegistryModel, int] | None:
    """The next better model that fits nowhere: the smallest of those, with what it would take."""
    better = [model for model in able if (quality_of(model, demand) or 0.0) > best.quality]
    return _smallest(better, demand, circumstances)


def _smallest(
    models: Sequence[RegistryModel], demand: Demand, circumstances: Circumstances
) -> tuple[RegistryModel, int] | None:
    """Of those that fit nowhere the one that takes least, with what that would be."""
    found = []
    for model in models:
        needs = [
            (_required_bytes(model, size, demand, circumstances, budget.place), budget.capacity_bytes)
            for size in model.sizes
            if size.of != MLX and pull_name_of(model, size)
            for budget in _places(size, circumstances)
        ]
        if needs and all(required > capacity for required, capacity in needs):
            found.append((min(needs)[0], model.id, model))
    if not found:
        return None
    needed, _, smallest = min(found)
    return smallest, needed


def _required_bytes(
    model: RegistryModel, size: RegistrySize, demand: Demand, circumstances: Circumstances, place: Place
) -> int:
    facts = facts_of(model, size)
    if facts is None:
        return size.size_bytes
    _, smaller = _footprints(facts, demand, circumstances, place)
    return smaller.total_bytes


def _footprints(
    facts: ModelFacts, demand: Demand, circumstances: Circumstances, place: Place
) -> tuple[Footprint, Footprint]:
    """With the context of the use, or all that the model has: with the largest cache, and with a smaller."""
    return footprint_at(
        facts,
        _context_of(facts, demand),
        circumstances.defaults,
        circumstances.memory,
        on_gpu=place is not Place.RAM,
    )


def _context_of(facts: ModelFacts, demand: Demand) -> int:
    return min(demand.context_tokens, facts.train_context_tokens or demand.context_tokens)
