"""Finished requests in SQLite: the ``RequestLog`` that ``services.inference`` appends to.

Invariant: a record that ``append`` has returned for survives a kill and a power cut.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.core.ports import RequestLog
from autotuned.core.record import RequestRecord
from autotuned.storage.db import Database
from autotuned.storage.tables import RequestRow

_OWN_COLUMNS = tuple(f.name for f in fields(RequestRecord) if f.name != "shape")
_SHAPE_COLUMNS = tuple(f.name for f in fields(LoadShape))


class SqliteRequestLog(RequestLog):
    """Appends, reads and prunes. Every method raises what ``Database.run`` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, record: RequestRecord) -> None:
        """Commits one record."""
        row = _to_row(record)
        await self._database.run(lambda: RequestRow.insert(row).execute(self._database.sqlite))

    async def recent(self, limit: int) -> list[RequestRecord]:
        """At most ``limit`` records, the latest one that finished first."""
        query = RequestRow.select().order_by(RequestRow.id.desc()).limit(limit).dicts()
        rows = await self._database.run(lambda: list(query.execute(self._database.sqlite)))
        return [_to_record(row) for row in rows]

    async def prune(self, older_than_seconds: float, now: float) -> int:
        """Forgets the requests that started so long before ``now`` (epoch seconds); returns their number."""
        query = RequestRow.delete().where(RequestRow.started_at < now - older_than_seconds)
        return int(await self._database.run(lambda: query.execute(self._database.sqlite)))


def _to_row(record: RequestRecord) -> dict[str, object]:
    row = {name: _storable(getattr(record, name)) for name in _OWN_COLUMNS}
    if record.shape is not None:
        row |= {name: _storable(getattr(record.shape, name)) for name in _SHAPE_COLUMNS}
    return row


def _to_record(row: dict[str, Any]) -> RequestRecord:
    shape = {name: row[name] for name in _SHAPE_COLUMNS}
    own = {name: row[name] for name in _OWN_COLUMNS}
    return RequestRecord(**own, shape=_to_shape(shape))


def _to_shape(columns: dict[str, Any]) -> LoadShape | None:
    if columns["context_tokens"] is None:
        return None
    for name in ("key_cache_type", "value_cache_type"):
        columns[name] = KvCacheType(columns[name])
    columns["assumed"] = tuple(columns["assumed"].split())
    return LoadShape(**columns)


def _storable(value: object) -> object:
    """SQLite takes neither enums nor the lone surrogates of file names that are not UTF-8."""
    if isinstance(value, KvCacheType):
        return value.value
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value
