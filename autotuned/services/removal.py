"""Deletes models from the disk: out of memory first, then every copy that is ours to delete.

Called by ``rpc.models``. Invariant: a copy that stays is told with what to do about it; where none went, the
reason is raised.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from autotuned.core.errors import (
    AutotuneError,
    EngineUnreachable,
    FieldInvalid,
    ModelNotFound,
    StorageFull,
    Unsupported,
)
from autotuned.core.model import ModelEntry
from autotuned.core.plan import Reason
from autotuned.log import fields
from autotuned.services.catalogue import Catalogue
from autotuned.services.models import Models
from autotuned.services.prefixes import Prefixes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What went: bytes and places; ``kept`` are the copies that stay, each with why."""

    freed_bytes: int
    paths: tuple[str, ...]
    kept: tuple[Reason, ...]


class Removal:
    """Deletes from every engine that has the model."""

    def __init__(self, *, catalogue: Catalogue, models: Models, prefixes: Prefixes) -> None:
        self._catalogue = catalogue
        self._models = models
        self._prefixes = prefixes

    async def delete(self, name: str, engine: str) -> Removed:
        """Deletes a model wherever it is, or the copy of one engine.

        Raises ModelNotFound, FieldInvalid, EngineUnreachable, Unsupported, StorageFull.
        """
        if not name:
            raise FieldInvalid("model", "it is empty; name the model to delete.")
        model, asked = await self._catalogue.find(name, engine)
        entries = [entry for entry in model.entries if not asked or entry.engine == asked]
        freed_bytes = 0
        gone: list[ModelEntry] = []
        refusals: list[tuple[ModelEntry, AutotuneError]] = []
        for entry in entries:
            try:
                await self._models.unload(entry.id, entry.engine)
                freed_bytes += await self._catalogue.engine(entry.engine).delete(entry)
            except (Unsupported, EngineUnreachable, ModelNotFound, StorageFull) as error:
                refusals.append((entry, error))
            else:
                gone.append(entry)
                _log.info("deleted", extra=fields(model=entry.id, engine=entry.engine, path=entry.path))
        if not gone:
            raise refusals[0][1]
        left = {entry.key for each in await self._catalogue.models() for entry in each.entries}
        # What an engine refused may have gone with another's copy; one that does not answer lists nothing.
        stayed = [
            (entry, error)
            for entry, error in refusals
            if entry.key in left or isinstance(error, EngineUnreachable)
        ]
        staying = {entry.key for entry, _ in stayed}
        await self._prefixes.delete(*(entry.key for entry in entries if entry.key not in staying))
        return Removed(
            freed_bytes=freed_bytes,
            paths=tuple(entry.path or entry.key for entry in gone),
            kept=tuple(Reason("kept", error.message) for _, error in stayed),
        )
