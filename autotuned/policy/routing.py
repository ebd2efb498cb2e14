"""Which engine runs a request, of those that offer its model.

``services.models`` asks for every request of a model that several engines offer. In this order: what the
request says, what can do what it asks, where the model is in memory, what is configured, what is fast
here. Invariant: nothing goes to a server elsewhere, or to a CPU beside a GPU, without being told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from autotuned.core.engine import EngineStatus
from autotuned.core.model import ModelEntry
from autotuned.core.plan import Reason
from autotuned.policy.wording import listed

AUTO = "auto"
GPU_UNUSED = "gpu-unused"
"""The code of the finding that an engine leaves a GPU of the machine alone."""


class Speed(IntEnum):
    """How fast an engine is expected to be here; lower is faster."""

    BEST = 0
    WITHOUT_THE_GPU = 1
    ELSEWHERE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An engine that offers the model.

    ``refusal`` is why it cannot do what the request asks, "" where it can. Candidates come in the order
    in which they are taken where nothing else decides.
    """

    entry: ModelEntry
    status: EngineStatus
    is_local: bool
    is_loaded: bool
    refusal: str = ""

    @property
    def speed(self) -> Speed:
        """How fast it is expected to be."""
        if not self.is_local:
            return Speed.ELSEWHERE
        return Speed.WITHOUT_THE_GPU if leaves_gpu_alone(self.status) else Speed.BEST


@dataclass(frozen=True, slots=True)
class Route:
    """The choice, and why where there was something to choose or to know."""

    candidate: Candidate
    reasons: tuple[Reason, ...]


def route(candidates: Sequence[Candidate], *, engine: str, prefer: str) -> Route:
    """Chooses among at least one candidate.

    ``engine`` "" leaves the choice; ``prefer`` is the name of an engine, or "auto".
    """
    if engine:
        chosen = next(each for each in candidates if each.entry.engine == engine)
        return _told(chosen, "the request names it", len(candidates))
    able = [each for each in candidates if not each.refusal]
    unable = [each for each in candidates if each.refusal]
    pool = able or list(candidates)
    loaded = [each for each in pool if each.is_loaded]
    preferred = [each for each in pool if each.entry.engine == prefer]
    fastest = min(pool, key=lambda each: each.speed)
    if loaded:
        return _told(loaded[0], "the model is in memory there", len(candidates))
    if preferred:
        return _told(preferred[0], "engines.prefer names it", len(candidates))
    if able and unable:
        names = listed([each.entry.engine for each in unable])
        return _told(fastest, f"{names} cannot do what is asked ({unable[0].refusal})", len(candidates))
    return _told(fastest, _why_fastest(fastest, pool), len(candidates))


def leaves_gpu_alone(status: EngineStatus) -> bool:
    """Whether an engine computes on the CPU of a machine that has a GPU."""
    return any(finding.code == GPU_UNUSED for finding in status.findings)


def _why_fastest(fastest: Candidate, pool: Sequence[Candidate]) -> str:
    slower = [each.entry.engine for each in pool if each.speed > fastest.speed]
    if not slower:
        return "it comes first of those that are as fast here"
    return f"it is faster here than {listed(slower)}"


def _told(chosen: Candidate, why: str, candidates_count: int) -> Route:
    reasons: tuple[Reason, ...] = ()
    name = chosen.entry.engine
    if candidates_count > 1:
        reasons += (Reason("engine", f"{name} runs it: {why}."),)
    if leaves_gpu_alone(chosen.status):
        reasons += (
            Reason(
                "engine-gpu-unused",
                f"{name} computes on the CPU though the machine has a GPU; "
                '"autotunectl doctor" says how to use it.',
            ),
        )
    return Route(chosen, reasons)
