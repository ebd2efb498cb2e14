"""Which models to run here, of those that could be downloaded.

Called by ``rpc.registry`` and ``services.pulls``. Invariant: it decides nothing itself; memory, registry and
what is installed are looked at for each question.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from autotuned.core.download import Source
from autotuned.core.model import EMBEDDED_ENGINE
from autotuned.core.ports import RegistryFile
from autotuned.core.registry import Registry
from autotuned.policy.installed import installed_names
from autotuned.policy.places import PlaceBudget, computes_on_gpu
from autotuned.policy.recommend import HUGGING_FACE, OLLAMA, recommend
from autotuned.policy.recommendation import Circumstances, Recommendations
from autotuned.policy.situation import ShapeDefaults
from autotuned.policy.use_cases import UseCase
from autotuned.services.hardware import HardwareReports
from autotuned.services.models import Models
from autotuned.services.pull_ways import usual_server

_SOURCES = {OLLAMA: Source.OLLAMA_REGISTRY, HUGGING_FACE: Source.HUGGING_FACE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What is recommended, and the memory that was reckoned with."""

    recommendations: Recommendations
    budgets: tuple[PlaceBudget, ...]


class Recommender:
    """Joins the registry with the machine."""

    def __init__(
        self,
        *,
        registry: RegistryFile,
        reports: HardwareReports,
        models: Models,
        defaults: ShapeDefaults,
    ) -> None:
        self._registry = registry
        self._reports = reports
        self._models = models
        self._defaults = defaults

    @property
    def own_file(self) -> str:
        """Where the user's own models are looked for."""
        return str(self._registry.own_file)

    async def registry(self) -> Registry:
        """All models that could be downloaded."""
        return await self._registry.read()

    async def recommend(self, use_case: UseCase) -> Advice:
        """The models that suit best."""
        room, registry, listings = await asyncio.gather(
            self._reports.room(), self._registry.read(), self._models.listings()
        )
        circumstances = Circumstances(
            budgets=room.budgets,
            memory=room.memory,
            defaults=self._defaults,
            installed=installed_names(registry.models, [listing.model for listing in listings]),
            beside_gpu=frozenset(name for name, source in _SOURCES.items() if not self._uses_gpu(source)),
        )
        recommendations = await asyncio.to_thread(recommend, registry.models, use_case, circumstances)
        return Advice(recommendations=recommendations, budgets=room.budgets)

    def _uses_gpu(self, source: Source) -> bool:
        """Whether the engine that would run what is pulled from there computes on a GPU."""
        engines = self._models.engines
        server = usual_server(source, engines, self._models.prefer)
        name = server.name if server else EMBEDDED_ENGINE
        return computes_on_gpu([engine.status() for engine in engines if engine.name == name])
