"""Recommendations as values: what they depend on, and what is recommended and why.

``recommend`` makes them, ``reasons_recommend`` words them, ``rpc.registry`` tells them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotuned.core.memory import Footprint, MemoryView
from autotuned.core.plan import Reason
from autotuned.core.registry import RegistryModel, RegistrySize
from autotuned.policy.places import PlaceBudget
from autotuned.policy.situation import ShapeDefaults

PERMISSIVE = ("APACHE", "MIT", "BSD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What a recommendation depends on beside the models.

    ``installed`` are ids of models that are here by the names under which they could be pulled. Downloads of
    the sources in ``beside_gpu`` would be run by an engine that leaves the GPU alone, though another uses it.
    """

    budgets: tuple[PlaceBudget, ...]
    memory: MemoryView
    defaults: ShapeDefaults
    installed: Mapping[str, str]
    beside_gpu: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A model that suits. ``quality`` and ``score`` are 0 to 100; ``pull_name`` is what to pull.

    ``tokens_per_second`` is an estimate, 0 where there is none; ``installed_as`` "" where it is not here.
    ``smaller_cache``: it fits only with a KV cache in Q8_0.
    """

    model: RegistryModel
    size: RegistrySize
    pull_name: str
    budget: PlaceBudget
    footprint: Footprint
    context_tokens: int
    tokens_per_second: float
    quality: float
    score: float
    smaller_cache: bool = False
    installed_as: str = ""
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendations:
    """The best and its alternatives, three at most; ``reasons`` hold for all of them."""

    picks: tuple[Recommendation, ...]
    reasons: tuple[Reason, ...]


def is_permissive(license_name: str) -> bool:
    """Whether a license, or each of several, asks for little more than its own text."""
    return all(part.startswith(PERMISSIVE) for part in license_name.upper().split(" AND "))
