"""The database file: how it is made, opened, refused and closed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from autotuned.core.errors import StorageFull
from autotuned.storage.db import Database
from autotuned.storage.errors import DatabaseDamaged, DatabaseTooNew, DataFolderUnusable, StorageFailed


def database_threads() -> int:
    return sum(thread.name.startswith("database") for thread in threading.enumerate())


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def opening_fails(path: Path, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        async with Database(path):
            pytest.fail("the database opened")
    assert database_threads() == 0
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


async def test_only_the_owner_may_read_it(database: Database):
    await database.run(lambda: database.sqlite.execute_sql("CREATE TABLE t (a)"))
    files = sorted(database.path.parent.iterdir())
    assert [f.name for f in files] == ["autotune.sqlite", "autotune.sqlite-shm", "autotune.sqlite-wal"]
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert stat.S_IMODE(database.path.parent.stat().st_mode) == 0o700


async def test_what_is_acknowledged_is_on_the_disk(database: Database):
    def pragmas():
        return [database.sqlite.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys")]

    assert await database.run(pragmas) == ["wal", 2, 1]


async def test_statements_run_on_one_thread_of_their_own(database: Database):
    names = await asyncio.gather(*(database.run(lambda: threading.current_thread().name) for _ in range(20)))
    assert len(set(names)) == 1
    assert names[0].startswith("database")


async def test_closing_leaves_one_file_and_no_thread(tmp_path: Path):
    path = tmp_path / "autotune.sqlite"
    async with Database(path) as database:
        await database.run(lambda: database.sqlite.execute_sql("CREATE TABLE t (a)"))
    assert names(tmp_path) == ["autotune.sqlite"]
    assert database_threads() == 0


async def test_a_cancelled_close_still_closes(tmp_path: Path):
    path = tmp_path / "autotune.sqlite"
    opened, busy, go_on = asyncio.Event(), threading.Event(), threading.Event()

    def hold():
        busy.set()
        assert go_on.wait(10)

    async def use():
        async with Database(path) as database:
            holding = asyncio.ensure_future(database.run(hold))
            opened.set()
            await asyncio.to_thread(busy.wait, 10)
        await holding

    task = asyncio.create_task(use())
    await opened.wait()
    await asyncio.to_thread(busy.wait, 10)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path) == ["autotune.sqlite"]
    assert database_threads() == 0


async def test_a_failing_statement_is_one_error_and_the_next_one_works(database: Database):
    with pytest.raises(StorageFailed, match="no such table"):
        await database.run(lambda: database.sqlite.execute_sql("SELECT * FROM missing"))
    assert await database.run(lambda: 7) == 7


async def test_a_mistake_in_the_program_is_not_dressed_up(database: Database):
    with pytest.raises(ZeroDivisionError):
        await database.run(lambda: 1 // 0)


async def test_two_databases_live_in_one_process(tmp_path: Path):
    async with Database(tmp_path / "a.sqlite") as a, Database(tmp_path / "b.sqlite") as b:
        await a.run(lambda: a.sqlite.execute_sql("CREATE TABLE only_a (x)"))
        assert "only_a" not in await b.run(b.sqlite.get_tables)


@pytest.mark.parametrize("content", [b"not a database, but long enough to have a header" * 10, b"short"])
async def test_a_file_that_is_no_database(tmp_path: Path, content: bytes):
    path = tmp_path / "autotune.sqlite"
    path.write_bytes(content)
    sentence = await opening_fails(path, DatabaseDamaged)
    assert "move it away" in sentence
    assert path.read_bytes() == content


async def test_a_damaged_database(tmp_path: Path):
    path = tmp_path / "autotune.sqlite"
    async with Database(path):
        pass
    content = bytearray(path.read_bytes())
    content[100:4000] = b"\xff" * 3900
    path.write_bytes(content)
    assert "move it away" in await opening_fails(path, DatabaseDamaged)


async def test_the_database_of_another_program(tmp_path: Path):
    path = tmp_path / "autotune.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE cookies (id)")
        other.commit()
    assert "belongs to another program" in await opening_fails(path, DatabaseDamaged)


async def test_a_database_of_a_newer_version(tmp_path: Path):
    path = tmp_path / "autotune.sqlite"
    async with Database(path):
        pass
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("INSERT INTO applied_migrations (name) VALUES ('9999_telepathy')")
        newer.commit()
    sentence = await opening_fails(path, DatabaseTooNew)
    assert "9999_telepathy" in sentence
    assert "newer autotune" in sentence


async def test_a_database_that_another_process_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autotuned.storage.db._BUSY_SECONDS", 0.05)
    path = tmp_path / "autotune.sqlite"
    async with Database(path):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("INSERT INTO applied_migrations (name) VALUES ('x')")
        assert "end what else uses it" in await opening_fails(path, DataFolderUnusable)
        other.execute("ROLLBACK")


async def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    sentence = await opening_fails(tmp_path / "file" / "data" / "autotune.sqlite", DataFolderUnusable)
    assert "AUTOTUNE_DATA_DIR" in sentence


async def test_a_folder_where_the_database_should_be(tmp_path: Path):
    (tmp_path / "autotune.sqlite").mkdir()
    await opening_fails(tmp_path / "autotune.sqlite", DataFolderUnusable)


async def test_a_folder_that_may_only_be_read(read_only_folder: Path, unprivileged):
    with unprivileged():
        sentence = await opening_fails(read_only_folder / "autotune.sqlite", DataFolderUnusable)
    assert "make it writable for you" in sentence


async def test_a_disk_that_is_full_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_space(*args, **kwargs):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "open", no_space)
    with pytest.raises(StorageFull, match="is full"):
        async with Database(tmp_path / "autotune.sqlite"):
            pytest.fail("the database opened")
    assert database_threads() == 0
    monkeypatch.undo()
    shutil.rmtree(tmp_path)
