"""Which models there are, on which engines, and how those engines stand.

``services.models`` resolves names with it, ``services.engines`` and the daemon's job look at the engines.
Invariants: an engine that hangs delays nobody longer than its own deadline; what was listed last resolves
names without a look at disk or network.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence

from autotuned.core.engine import EngineState, EngineStatus
from autotuned.core.errors import AutotuneError, EngineUnreachable, FieldInvalid, ModelNotFound
from autotuned.core.model import ModelEntry
from autotuned.core.ports import Engine
from autotuned.policy.catalogue import CatalogueModel, joined, named
from autotuned.policy.wording import listed


class Catalogue:
    """``engines`` come in the order in which they are taken where nothing else decides."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = {engine.name: engine for engine in engines}
        self._models: tuple[CatalogueModel, ...] = ()

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines, in the order of preference."""
        return tuple(self._engines.values())

    def engine(self, name: str) -> Engine:
        """One of them. Raises FieldInvalid."""
        if name not in self._engines:
            known = ", ".join(sorted(self._engines))
            raise FieldInvalid("engine", f'there is no engine "{name}"; use one of: {known}.')
        return self._engines[name]

    def split(self, name: str, engine: str) -> tuple[str, str]:
        """Model and engine of a name that may have its engine before it. Raises FieldInvalid."""
        if engine:
            self.engine(engine)
            return name.removeprefix(f"{engine}/"), engine
        before, slash, after = name.partition("/")
        return (after, before) if slash and before in self._engines else (name, "")

    def known(self, name: str) -> CatalogueModel | None:
        """The model of a name as it was listed last, without a look at anything."""
        return named(self._models, name)

    def name_of(self, entry: ModelEntry) -> str:
        """What the model of an entry is called in the list, as it was made last."""
        for model in self._models:
            if any(each.key == entry.key for each in model.entries):
                return model.id
        return entry.key

    async def refresh(self) -> None:
        """Looks how every engine stands."""
        await asyncio.gather(*(engine.refresh() for engine in self._engines.values()))

    async def models(self) -> tuple[CatalogueModel, ...]:
        """Every model that there is now, by id."""
        models, _ = await self._look()
        return models

    async def _look(self) -> tuple[tuple[CatalogueModel, ...], dict[str, EngineStatus]]:
        """Every model, and how each engine stood when it listed its own: that is why a list is empty."""
        looks = await asyncio.gather(*(_list(engine) for engine in self._engines.values()))
        self._models = joined([entry for entries, _ in looks for entry in entries])
        return self._models, {status.name: status for _, status in looks}

    async def find(self, name: str, engine: str = "") -> tuple[CatalogueModel, str]:
        """The model of a name, and the engine that the name or the caller asks for, "" for any.

        Raises ModelNotFound, FieldInvalid, and EngineUnreachable where the engine that is asked for is not
        there.
        """
        models, statuses = await self._look()
        qualified = named(models, name) if not engine else None
        if qualified is not None and qualified.id == name:
            return qualified, ""  # "ollama/x" may be the id of a model, where "x" is another one
        bare, asked = self.split(name, engine)
        model = named(models, f"{asked}/{bare}") if asked else None
        model = model or named(models, bare)
        if model is None or (asked and all(entry.engine != asked for entry in model.entries)):
            raise _not_found(name, asked, models, statuses)
        return model, asked


async def _list(engine: Engine) -> tuple[Sequence[ModelEntry], EngineStatus]:
    entries = await engine.models()
    return entries, engine.status()


def _not_found(
    name: str, asked: str, models: Sequence[CatalogueModel], statuses: Mapping[str, EngineStatus]
) -> AutotuneError:
    if asked:
        status = statuses[asked]
        if status.state is not EngineState.READY:
            detail = status.detail or f"it is {status.state.value}"
            return EngineUnreachable(
                f'The engine {asked} cannot be used: {detail}; "autotunectl doctor" says what to do.',
                engine=asked,
            )
    away = [
        engine
        for engine, status in statuses.items()
        if status.state in {EngineState.UNREACHABLE, EngineState.STARTING}
    ]
    known = [each for model in models for each in model.names]
    return ModelNotFound(name, _nearest(name, known), away=listed(away))


def _nearest(wanted: str, known: list[str]) -> str:
    """The id that was probably meant: alike in spelling, or one that contains what was typed."""
    alike = difflib.get_close_matches(wanted.lower(), [name.lower() for name in known], n=1, cutoff=0.5)
    for name in known:
        if (alike and name.lower() == alike[0]) or (not alike and wanted and wanted.lower() in name.lower()):
            return name
    return known[0] if len(known) == 1 else ""
