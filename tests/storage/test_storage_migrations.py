"""Migrations: each once, each whole or not at all."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from autotuned.storage.errors import DatabaseDamaged
from autotuned.storage.migrations import MIGRATIONS, Migration, migrate
from autotuned.storage.tables import LearnedModelRow, RequestRow, SessionRow

FIRST = Migration("0001_a", ("CREATE TABLE a (x)", "INSERT INTO a VALUES (1)"))
SECOND = Migration("0002_b", ("CREATE TABLE b (x)", "INSERT INTO a VALUES (2)"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.sqlite"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def applied(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM applied_migrations ORDER BY id")]


def test_names_are_unique_and_in_order():
    names = [migration.name for migration in MIGRATIONS]
    assert names == sorted(set(names))


def test_each_runs_once_and_later_ones_follow(connection, path):
    migrate(connection, path, [FIRST])
    migrate(connection, path, [FIRST])
    migrate(connection, path, [FIRST, SECOND])
    assert applied(connection) == ["0001_a", "0002_b"]
    assert [x for (x,) in connection.execute("SELECT x FROM a")] == [1, 2]


def test_one_that_fails_leaves_nothing_of_itself(connection, path):
    broken = Migration("0002_b", (*SECOND.statements, "INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, path, [FIRST, broken])
    assert applied(connection) == ["0001_a"]
    assert not connection.in_transaction
    migrate(connection, path, [FIRST, SECOND])
    assert [x for (x,) in connection.execute("SELECT x FROM a")] == [1, 2]


def test_a_file_that_misses_an_early_one_is_refused(connection, path):
    migrate(connection, path, [Migration("0002_b", ("CREATE TABLE b (x)",))])
    with pytest.raises(DatabaseDamaged, match="lacks parts of its history"):
        migrate(connection, path, [FIRST, SECOND])


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from autotuned.storage.migrations import Migration, migrate
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
migrate(connection, Path(sys.argv[1]), [
    Migration("0001_a", ("CREATE TABLE a (x)", "INSERT INTO a VALUES (1)")),
    Migration("0002_b", ("CREATE TABLE b (x)", "INSERT INTO a VALUES (2)", "SELECT die()")),
])
"""


def test_a_kill_in_the_middle_is_made_good_at_the_next_start(path):
    ended = subprocess.run([sys.executable, "-c", KILLED, path], timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert applied(connection) == ["0001_a"]
        migrate(connection, path, [FIRST, SECOND])
        assert [x for (x,) in connection.execute("SELECT x FROM a")] == [1, 2]


@pytest.mark.parametrize("table", [RequestRow, LearnedModelRow, SessionRow])
def test_the_models_have_the_columns_of_the_schema(connection, path, table):
    migrate(connection, path)
    in_file = {
        (name, bool(not_null or primary))
        for _, name, _, not_null, _, primary in connection.execute(
            f"PRAGMA table_info({table._meta.table_name})"
        )
    }
    in_model = {(field.column_name, not field.null) for field in table._meta.sorted_fields}
    assert in_file == in_model
