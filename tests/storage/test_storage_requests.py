"""Finished requests: what goes in comes out, and what was acknowledged stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from autotuned.core.errors import AutotuneError, StorageFull
from autotuned.core.record import RequestRecord
from autotuned.storage.db import Database
from autotuned.storage.errors import StorageFailed
from autotuned.storage.requests import SqliteRequestLog

DATA = Path(__file__).parents[1] / "data"


async def test_a_record_comes_back_as_it_was(request_log, record):
    with_shape = record("a")
    refused = record("b", shape=None, error_reason="QUEUE_FULL", finish_reason="", engine="")
    await request_log.append(with_shape)
    await request_log.append(refused)
    assert await request_log.recent(10) == [refused, with_shape]


async def test_every_field_has_a_column_of_its_own(request_log, record):
    """Distinct values everywhere: two swapped columns would show."""
    numbers = {
        name: index
        for index, name in enumerate(RequestRecord.__slots__, start=100)
        if name not in {"request_id", "model", "engine", "finish_reason", "error_reason", "shape"}
    }
    written = record("distinct", **numbers)
    await request_log.append(written)
    assert await request_log.recent(1) == [written]


async def test_recent_is_bounded(request_log, record):
    await append_all(request_log, (record(f"r{number}") for number in range(5)))
    assert [r.request_id for r in await request_log.recent(2)] == ["r4", "r3"]


async def test_prune_forgets_what_is_old_alone(request_log, record):
    for age_seconds in (0, 50, 99, 101, 5000):
        await request_log.append(record(f"age-{age_seconds}", started_at=10_000.0 - age_seconds))
    assert await request_log.prune(100.0, 10_000.0) == 2
    assert {r.request_id for r in await request_log.recent(10)} == {"age-0", "age-50", "age-99"}


async def test_lone_surrogates_of_file_names_are_stored_readably(request_log, record):
    await request_log.append(record(model="caf\udce9.gguf"))
    assert (await request_log.recent(1))[0].model == "caf\\udce9.gguf"


async def test_a_second_record_of_one_request_is_refused(request_log, record):
    await request_log.append(record("twice"))
    with pytest.raises(StorageFailed, match="UNIQUE"):
        await request_log.append(record("twice"))
    assert issubclass(StorageFailed, AutotuneError)
    assert len(await request_log.recent(10)) == 1


async def append_all(request_log: SqliteRequestLog, records: Iterable[RequestRecord]) -> None:
    for record in records:
        await request_log.append(record)


async def test_a_full_disk_is_said_in_a_sentence_and_passes(database: Database, request_log, record):
    pages = await database.run(lambda: database.sqlite.pragma("page_count"))
    await database.run(lambda: database.sqlite.pragma("max_page_count", pages))
    with pytest.raises(StorageFull, match="is full; free some space there") as caught:
        await append_all(request_log, (record(f"r{number}") for number in range(1000)))
    assert str(database.path.parent) in caught.value.message
    kept = len(await request_log.recent(1000))

    await database.run(lambda: database.sqlite.pragma("max_page_count", 10_000))
    await request_log.append(record("after"))
    assert len(await request_log.recent(1000)) == kept + 1


FULL_DISK = """
import asyncio, sys
from pathlib import Path
from autotuned.core.errors import StorageFull
from autotuned.storage.db import Database
from autotuned.storage.requests import SqliteRequestLog
sys.path.insert(0, sys.argv[2])
from conftest import make_record

async def main(folder):
    async with Database(folder / "autotune.sqlite") as database:
        log = SqliteRequestLog(database)
        await log.append(make_record("before"))
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                print("filled")
        try:
            for number in range(100):
                await log.append(make_record(f"r{number}"))
        except StorageFull:
            print("full")
        filler.unlink()
        await log.append(make_record("after"))
        stored = [r.request_id for r in await log.recent(500)]
        print(stored[0], stored[-1])

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_really_full_disk(tmp_path: Path, run_on_disk):
    printed = run_on_disk(FULL_DISK, tmp_path, "size=1m", Path(__file__).parent)
    assert printed.split() == ["filled", "full", "after", "before"]


WRITER = """
import asyncio, sys
from pathlib import Path
from autotuned.storage.db import Database
from autotuned.storage.requests import SqliteRequestLog
sys.path.insert(0, sys.argv[2])
from conftest import make_record

async def main(path):
    async with Database(path) as database:
        log = SqliteRequestLog(database)
        number = 0
        while True:
            await log.append(make_record(f"r{number}"))
            print(number, flush=True)
            number += 1

asyncio.run(main(Path(sys.argv[1])))
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, path, Path(__file__).parent]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_a_kill_loses_no_acknowledged_record(tmp_path: Path):
    path = tmp_path / "autotune.sqlite"
    with start_writer(path) as writer:
        acknowledged = [writer.stdout.readline() for _ in range(20)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += writer.stdout.readlines()
    complete = [int(line) for line in acknowledged if line.endswith("\n")]
    assert len(complete) >= 20

    async with Database(path) as database:
        stored = {r.request_id for r in await SqliteRequestLog(database).recent(1_000_000)}
    assert stored >= {f"r{number}" for number in complete}


async def test_the_first_released_file_loads_for_ever(tmp_path: Path, record):
    """Never make ``requests_v1.sqlite`` anew: it stands for what is on users' disks."""
    path = tmp_path / "autotune.sqlite"
    shutil.copyfile(DATA / "requests_v1.sqlite", path)
    async with Database(path) as database:
        log = SqliteRequestLog(database)
        old = await log.recent(10)
        assert old == [
            replace(record("old-2"), shape=None, error_reason="QUEUE_FULL", finish_reason=""),
            record("old-1"),
        ]
        await log.append(record("new"))
        assert (await log.recent(1))[0].request_id == "new"
