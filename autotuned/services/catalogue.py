"""Which models there are, on which engines, and how those engines stand.

``services.models`` resolves names with it, ``services.engines`` and the daemon's job look at the engines.
Invariants: an engine that hangs delays nobody longer than its own deadline; what was listed last resolves
names without a look at disk or network; what goes wrong in one engine hides nothing of the others.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TypeVar

from autotuned.core.engine import EngineState, EngineStatus
from autotuned.core.errors import AutotuneError, EngineUnreachable, FieldInvalid, ModelNotFound
from autotuned.core.model import ModelEntry
from autotuned.core.ports import Engine
from autotuned.log import fields
from autotuned.policy.catalogue import CatalogueModel, joined, named, placed
from autotuned.policy.wording import listed

_Told = TypeVar("_Told")

_log = logging.getLogger(__name__)


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

    def known(self, name: str, engine: str = "") -> CatalogueModel | None:
        """The model of a name as it was listed last, without a look at anything.

        With an engine the one that it has under this name comes first.
        """
        return (placed(self._models, name, engine) if engine else None) or named(self._models, name)

    def name_of(self, entry: ModelEntry) -> str:
        """What the model of an entry is called in the list, as it was made last."""
        for model in self._models:
            if any(each.key == entry.key for each in model.entries):
                return model.id
        return entry.key

    def name_at(self, engine: str, model_id: str) -> str:
        """What the model that an engine has under this id is called in the list, as it was made last."""
        model = placed(self._models, model_id, engine)
        return model.id if model else f"{engine}/{model_id}"

    async def refresh(self) -> None:
        """Looks how every engine stands."""
        await asyncio.gather(*(told(engine, engine.refresh(), None) for engine in self._engines.values()))

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
        model = self.known(bare, asked)
        if model is None or (asked and all(entry.engine != asked for entry in model.entries)):
            raise _not_found(bare if asked else name, asked, models, statuses)
        return model, asked


async def told(engine: Engine, look: Awaitable[_Told], otherwise: _Told) -> _Told:
    """What an engine tells of itself; ``otherwise``, and a line in the log, where it fails to."""
    try:
        return await look
    except Exception:  # noqa: BLE001 - whatever it is, the other engines have their models
        _log.exception("an engine failed to tell", extra=fields(engine=engine.name))
        return otherwise


async def look_again(engines: Iterable[Engine]) -> None:
    """Looks at those that were not ready: a daemon that just began has seen none of them yet."""
    unready = [engine for engine in engines if engine.status().state is not EngineState.READY]
    await asyncio.gather(*(told(engine, engine.refresh(), None) for engine in unready))


async def _list(engine: Engine) -> tuple[Sequence[ModelEntry], EngineStatus]:
    nothing: Sequence[ModelEntry] = ()
    entries = await told(engine, engine.models(), nothing)
    return entries, engine.status()


def _not_found(
    name: str, asked: str, models: Sequence[CatalogueModel], statuses: Mapping[str, EngineStatus]
) -> AutotuneError:
    if asked:
        return _not_found_on(name, statuses[asked], models)
    away = [
        engine
        for engine, status in statuses.items()
        if status.state in {EngineState.UNREACHABLE, EngineState.STARTING}
    ]
    known = [each for model in models for each in model.names]
    return ModelNotFound(name, _nearest(name, known), away=listed(away))


def _not_found_on(name: str, status: EngineStatus, models: Sequence[CatalogueModel]) -> AutotuneError:
    engine = status.name
    if status.state is not EngineState.READY:
        is_known = status.findings or status.state is EngineState.UNREACHABLE
        advice = '"autotunectl doctor" says what to do' if is_known else "take another one"
        detail = status.detail or f"it is {status.state.value}"
        return EngineUnreachable(f"The engine {engine} cannot be used: {detail}; {advice}.", engine=engine)
    elsewhere = named(models, name)
    if elsewhere is not None:
        able = listed([entry.engine for entry in elsewhere.entries])
        return ModelNotFound(name, "", engine=engine, advice=f"it runs on {able}.")
    own = [entry.id for model in models for entry in model.entries if entry.engine == engine]
    return ModelNotFound(name, _nearest(name, own), engine=engine)


def _nearest(wanted: str, known: list[str]) -> str:
    """The id that was probably meant: alike in spelling, or one that contains what was typed."""
    alike = difflib.get_close_matches(wanted.lower(), [name.lower() for name in known], n=1, cutoff=0.5)
    for name in known:
        if (alike and name.lower() == alike[0]) or (not alike and wanted and wanted.lower() in name.lower()):
            return name
    return known[0] if len(known) == 1 else ""
