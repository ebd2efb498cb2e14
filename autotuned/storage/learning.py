"""What was learned of models and sessions, in SQLite: the ``LearningStore`` of the services.

Invariant: what is read was once written whole; loads of a form that is known no longer are forgotten,
never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import msgspec
from peewee import ModelSelect, fn

from autotuned.core.learning import MOST_SESSIONS, Learned, MeasuredLoad, SessionSize
from autotuned.core.ports import LearningStore
from autotuned.storage.db import Database
from autotuned.storage.tables import LearnedModelRow, SessionRow


class SqliteLearningStore(LearningStore):
    """Every method raises what ``Database.run`` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def learned(self) -> Mapping[str, Learned]:
        """Everything that is known, by model digest."""
        query = LearnedModelRow.select()
        rows = await self._database.run(lambda: list(query.execute(self._database.sqlite)))
        return {row.digest: _to_learned(row) for row in rows}

    async def remember(self, digest: str, learned: Learned) -> None:
        """Replaces what is known of one model."""
        query = LearnedModelRow.insert(
            digest=digest,
            loads_json=msgspec.json.encode(learned.loads).decode(),
            prefill_tokens_per_second=learned.prefill_tokens_per_second,
            tokens_per_byte=learned.tokens_per_byte,
            usual_context_tokens=learned.usual_context_tokens,
        ).on_conflict_replace()
        await self._database.run(lambda: query.execute(self._database.sqlite))

    async def sessions(self, newer_than: float) -> Sequence[SessionSize]:
        """Sessions that ended after this epoch second, oldest first; of each model the latest ones."""
        latest = _by_age().where(SessionRow.ended_at > newer_than).alias("latest")
        query = (
            SessionRow.select()
            .join(latest, on=(SessionRow.session == latest.c.session))
            .where(latest.c.age <= MOST_SESSIONS)
            .order_by(SessionRow.ended_at)
        )
        rows = await self._database.run(lambda: list(query.dicts().execute(self._database.sqlite)))
        return [SessionSize(**row) for row in rows]

    async def remember_session(self, size: SessionSize) -> None:
        """Adds a session, or replaces it by its name."""
        query = SessionRow.insert(asdict(size)).on_conflict_replace()
        await self._database.run(lambda: query.execute(self._database.sqlite))

    async def prune(self, older_than_seconds: float, now: float) -> int:
        """Forgets the sessions that ended so long before ``now`` (epoch seconds), and all but the latest.

        Returns their number.
        """
        by_age = _by_age().alias("by_age")
        surplus = by_age.select_from(by_age.c.session).where(by_age.c.age > MOST_SESSIONS)
        query = SessionRow.delete().where(
            (SessionRow.ended_at < now - older_than_seconds) | SessionRow.session.in_(surplus)
        )
        return int(await self._database.run(lambda: query.execute(self._database.sqlite)))


def _by_age() -> ModelSelect[SessionRow]:
    """Names of sessions with their ``age``: 1 is the latest one of its model."""
    age = fn.ROW_NUMBER().over(
        partition_by=[SessionRow.model_digest], order_by=[SessionRow.ended_at.desc(), SessionRow.session]
    )
    return SessionRow.select(SessionRow.session, age.alias("age"))


def _to_learned(row: LearnedModelRow) -> Learned:
    try:
        loads = msgspec.json.decode(row.loads_json, type=tuple[MeasuredLoad, ...])
    except msgspec.DecodeError:  # measured by another version, for shapes of another form
        loads = ()
    return Learned(
        loads=loads,
        prefill_tokens_per_second=row.prefill_tokens_per_second,
        tokens_per_byte=row.tokens_per_byte,
        usual_context_tokens=row.usual_context_tokens,
    )
