"""The ordered history of the database's schema, and how a file is brought up to date.

``storage.db`` calls ``migrate`` once, on its thread, before anything else sees the file.
Invariant: a released migration never changes; the applied ones are always the first ones of the
list. Each is one transaction together with its row in ``applied_migrations``, so that a process
that is killed leaves a file to which the rest can still be applied.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotuned.storage.errors import DatabaseDamaged, DatabaseTooNew

APPLICATION_ID = 0x6175746F  # "auto": how SQLite and file(1) tell our files from others


@dataclass(frozen=True, slots=True)
class Migration:
    """One step; ``name`` is unique for ever."""

    name: str
    statements: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "0001_requests",
        (
            """
            CREATE TABLE requests (
                id INTEGER PRIMARY KEY,
                request_id TEXT NOT NULL UNIQUE,
                model TEXT NOT NULL,
                engine TEXT NOT NULL,
                started_at REAL NOT NULL,
                finish_reason TEXT NOT NULL,
                error_reason TEXT NOT NULL,
                prompt_tokens INTEGER NOT NULL,
                cached_tokens INTEGER NOT NULL,
                reply_tokens INTEGER NOT NULL,
                queue_seconds REAL NOT NULL,
                load_seconds REAL NOT NULL,
                time_to_first_token_seconds REAL NOT NULL,
                prefill_seconds REAL NOT NULL,
                decode_seconds REAL NOT NULL,
                total_seconds REAL NOT NULL,
                decode_tokens_per_second REAL NOT NULL,
                context_tokens INTEGER,
                slots_count INTEGER,
                key_cache_type TEXT,
                value_cache_type TEXT,
                batch_tokens INTEGER,
                micro_batch_tokens INTEGER,
                flash_attention INTEGER,
                gpu_layers_count INTEGER
            )
            """,
            "CREATE INDEX requests_started_at ON requests (started_at)",
        ),
    ),
    Migration(
        "0002_learning",
        (
            "ALTER TABLE requests ADD COLUMN kv_unified INTEGER",
            "ALTER TABLE requests ADD COLUMN host_prompt_cache_bytes INTEGER",
            "ALTER TABLE requests ADD COLUMN memory_mapped INTEGER",
            # How every model was loaded while these were no part of a shape.
            """
            UPDATE requests SET kv_unified = 0, host_prompt_cache_bytes = 0, memory_mapped = 1
            WHERE context_tokens IS NOT NULL
            """,
            """
            CREATE TABLE learned_models (
                digest TEXT PRIMARY KEY NOT NULL,
                loads_json TEXT NOT NULL,
                prefill_tokens_per_second REAL NOT NULL,
                tokens_per_byte REAL NOT NULL,
                usual_context_tokens INTEGER NOT NULL
            )
            """,
            """
            CREATE TABLE sessions (
                session TEXT PRIMARY KEY NOT NULL,
                client TEXT NOT NULL,
                model_digest TEXT NOT NULL,
                kind TEXT NOT NULL,
                largest_tokens INTEGER NOT NULL,
                turns_count INTEGER NOT NULL,
                ended_at REAL NOT NULL
            )
            """,
            "CREATE INDEX sessions_ended_at ON sessions (ended_at)",
        ),
    ),
    Migration(
        "0003_prefixes",
        (
            """
            CREATE TABLE prefixes (
                id TEXT PRIMARY KEY NOT NULL,
                model_id TEXT NOT NULL,
                file_name TEXT NOT NULL UNIQUE,
                boundaries TEXT NOT NULL,
                boundary_tokens TEXT NOT NULL,
                tokens_count INTEGER NOT NULL,
                bytes_count INTEGER NOT NULL,
                sha256 TEXT NOT NULL,
                prefill_seconds REAL NOT NULL,
                created_at REAL NOT NULL,
                last_used_at REAL NOT NULL,
                conversation_id TEXT NOT NULL
            )
            """,
        ),
    ),
    Migration(
        "0004_assumed",
        (
            "ALTER TABLE requests ADD COLUMN assumed TEXT",
            # Until then every part of a shape had been set.
            "UPDATE requests SET assumed = '' WHERE context_tokens IS NOT NULL",
        ),
    ),
)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Applies what is missing to ``path``, open in autocommit mode as ``connection``.

    Raises ``DatabaseTooNew`` or ``DatabaseDamaged``, and changes nothing then.
    """
    _claim(connection, path)
    applied = [name for (name,) in connection.execute("SELECT name FROM applied_migrations ORDER BY id")]
    known = [migration.name for migration in migrations]
    if unknown := [name for name in applied if name not in known]:
        raise DatabaseTooNew(
            f"{path} was written by a newer autotune (it has {unknown[0]}); "
            "install that version, or move the file away to start with an empty one."
        )
    if applied != known[: len(applied)]:
        raise DatabaseDamaged(f"{path} lacks parts of its history; move it away to start with an empty one.")
    for migration in migrations[len(applied) :]:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in migration.statements:
                connection.execute(statement)
            connection.execute("INSERT INTO applied_migrations (name) VALUES (?)", (migration.name,))


def _claim(connection: sqlite3.Connection, path: Path) -> None:
    """Marks a new file as ours. Raises ``DatabaseDamaged`` for the database of another program."""
    if _number(connection, "PRAGMA application_id") == APPLICATION_ID:
        return
    if _number(connection, "SELECT count(*) FROM sqlite_master"):
        raise DatabaseDamaged(f"{path} belongs to another program; move it away, or set AUTOTUNE_DATA_DIR.")
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "CREATE TABLE applied_migrations (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
            " applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])
