"""The engines as a person wants to know them: how they stand, what they hold, and what is wrong.

Called by ``rpc.engines`` and ``rpc.models``, and by the daemon's job. Invariant: what is told was looked at
just now, or the engine did not answer and that is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from autotuned.core.engine import Capabilities, EngineResident, EngineStatus, Finding
from autotuned.core.model import ModelEntry, ModelState, RunningModel
from autotuned.core.ports import Engine, PrefixStore, RegistryFile
from autotuned.policy.findings import Circumstances, findings
from autotuned.policy.remote import foreign_shape
from autotuned.services.catalogue import Catalogue, told
from autotuned.services.models import Models
from autotuned.services.residency import Residency


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine."""

    status: EngineStatus
    capabilities: Capabilities
    models_count: int
    residents: tuple[EngineResident, ...]


class Engines:
    """Reports on engines.

    ``store`` tells how full the disk is, ``registry`` what is wrong with the user's own file of models.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        models: Models,
        residency: Residency,
        store: PrefixStore,
        registry: RegistryFile,
    ) -> None:
        self._catalogue = catalogue
        self._models = models
        self._residency = residency
        self._store = store
        self._registry = registry

    async def refresh(self) -> None:
        """Looks how the engines stand."""
        await self._catalogue.refresh()

    async def reports(self) -> list[EngineReport]:
        """Every engine, in the order of preference."""
        await self._catalogue.refresh()
        return list(await asyncio.gather(*(_report(engine) for engine in self._catalogue.engines)))

    async def findings(self) -> Sequence[Finding]:
        """What is wrong, worst first."""
        await self._catalogue.refresh()
        await self._residency.refresh()
        listings = await self._models.listings()
        return findings(
            Circumstances(
                statuses=tuple(engine.status() for engine in self._catalogue.engines),
                models=tuple(listing.model for listing in listings),
                default_model=self._models.default_model,
                pressure=self._residency.pressure,
                disk_free_bytes=await self._store.free_bytes(),
                prefer=self._models.prefer,
                registry_problems=(await self._registry.read()).problems,
            )
        )

    async def foreign_models(self) -> list[RunningModel]:
        """What servers have in memory that the daemon did not load."""
        own = {actor.entry.key for actor in self._models.running()}
        found = []
        for engine in self._catalogue.engines:
            residents = await _residents(engine)
            found += [
                _foreign(engine, each, self._catalogue.name_at(engine.name, each.model_id))
                for each in residents
                if f"{engine.name}/{each.model_id}" not in own
            ]
        return found


async def _report(engine: Engine) -> EngineReport:
    nothing: Sequence[ModelEntry] = ()
    models, residents = await told(engine, engine.models(), nothing), await _residents(engine)
    return EngineReport(engine.status(), engine.capabilities(), len(models), tuple(residents))


async def _residents(engine: Engine) -> Sequence[EngineResident]:
    nothing: Sequence[EngineResident] = ()
    return await told(engine, engine.residents(), nothing)


def _foreign(engine: Engine, resident: EngineResident, name: str) -> RunningModel:
    return RunningModel(
        id=name,
        engine=engine.name,
        state=ModelState.READY,
        incarnation_id="",
        shape=foreign_shape(resident.context_tokens),
        footprint=None,
        expires_at=resident.expires_at,
        resident_memory_bytes=resident.memory_bytes,
        process_id=0,
        loaded_at=0.0,
        last_used_at=0.0,
        load_seconds=0.0,
        active_requests_count=0,
        queued_requests_count=0,
        reasons=(),
        loaded_by_others=True,
    )
