"""The machine as a person wants to know it: what there is, what models may take of it, what to close.

Called by ``rpc.hardware``, ``services.recommend`` and ``services.pulls``. Invariant: memory was read just
now; what never changes is read once, by the probe.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from autotuned.core.hardware import Hardware
from autotuned.core.memory import MemoryReading, MemoryView
from autotuned.core.plan import Fit
from autotuned.core.ports import HardwareProbe, RegistryFile
from autotuned.core.registry import RegistryModel
from autotuned.policy.applications import Closing, closings
from autotuned.policy.fit import capacity_of, margin_of
from autotuned.policy.installed import known_model
from autotuned.policy.places import PlaceBudget, computes_on_gpu, place_budgets, places_of
from autotuned.policy.situation import ShapeDefaults
from autotuned.policy.speed import installed_tokens_per_second
from autotuned.services.catalogue import look_again
from autotuned.services.models import Listing, Models
from autotuned.services.residency import Residency

NOBODY = ""
"""The id of no model: memory as somebody sees it who has none of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The memory of now: what the machine has, who has it, and what models may take."""

    hardware: Hardware
    memory: MemoryView
    budgets: tuple[PlaceBudget, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledFit:
    """An installed model here; ``fit`` None for one that cannot be used, or runs elsewhere."""

    model_id: str
    engine: str
    fit: Fit | None
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareReport:
    """All of it."""

    hardware: Hardware
    reading: MemoryReading
    budgets: tuple[PlaceBudget, ...]
    fits: tuple[InstalledFit, ...]
    closings: tuple[Closing, ...]


class HardwareReports:
    """Joins the machine with the engines and models on it."""

    def __init__(
        self,
        *,
        probe: HardwareProbe,
        residency: Residency,
        models: Models,
        registry: RegistryFile,
        defaults: ShapeDefaults,
    ) -> None:
        self._probe = probe
        self._residency = residency
        self._models = models
        self._registry = registry
        self._margin_bytes = defaults.margin_bytes

    async def room(self) -> Room:
        """The memory of now."""
        local = [engine for engine in self._models.engines if engine.capabilities().is_local]
        hardware, _, _ = await asyncio.gather(
            self._probe.read(), self._residency.refresh(), look_again(local)
        )
        memory = self._residency.view(NOBODY)
        budgets = place_budgets(
            hardware,
            memory,
            margin_bytes=self._margin_bytes,
            uses_gpu=computes_on_gpu([engine.status() for engine in local]),
        )
        return Room(hardware=hardware, memory=memory, budgets=budgets)

    async def report(self) -> HardwareReport:
        """Everything."""
        room, listings, applications, registry = await asyncio.gather(
            self.room(), self._models.listings(), self._probe.applications(), self._registry.read()
        )
        fits = tuple(self._fit(listing, room, registry.models) for listing in listings)
        known = [(each.model_id, each.fit) for each in fits if each.fit is not None]
        reading = room.memory.reading
        margin = margin_of(reading, self._margin_bytes)
        return HardwareReport(
            hardware=room.hardware,
            reading=reading,
            budgets=room.budgets,
            fits=fits,
            closings=closings(applications, known, margin_bytes=margin, capacity_bytes=capacity_of(reading)),
        )

    def _fit(self, listing: Listing, room: Room, registry: tuple[RegistryModel, ...]) -> InstalledFit:
        entry, fit = listing.entry, self._models.fit_of(listing.entry)
        if fit is None or entry.facts is None:
            return InstalledFit(model_id=listing.model.id, engine=entry.engine, fit=None)
        places = places_of(room.budgets, self._models.engine_of(entry).status())
        speed = installed_tokens_per_second(
            entry.facts, fit.required_bytes, known_model(entry, registry), places
        )
        return InstalledFit(model_id=listing.model.id, engine=entry.engine, fit=fit, tokens_per_second=speed)
