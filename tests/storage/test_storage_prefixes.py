"""The manifest of saved KV prefixes and its folder: what was added stays, everything else goes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autotuned.core.prefix import SavedPrefix
from autotuned.storage.db import Database
from autotuned.storage.errors import StorageFailed
from autotuned.storage.prefixes import FilePrefixStore
from autotuned.storage.tables import PrefixRow

PREFIX = SavedPrefix(
    id="p1",
    model_id="pocket",
    file_name="p1.kv",
    boundaries=("aa", "bb"),
    boundary_tokens=(10, 20),
    tokens_count=25,
    bytes_count=4,
    sha256="",
    prefill_seconds=1.5,
    created_at=1_790_000_000.25,
    last_used_at=1_790_000_001.5,
)


@pytest.fixture
async def store(database: Database, tmp_path: Path) -> FilePrefixStore:
    store = FilePrefixStore(database, tmp_path / "data" / "prefixes")
    assert await store.prefixes() == []
    return store


def named(name: str, **changes) -> SavedPrefix:
    return replace(PREFIX, id=name, file_name=f"{name}.kv", **changes)


async def add(store: FilePrefixStore, prefix: SavedPrefix, content: bytes = b"data") -> SavedPrefix:
    (store.folder / prefix.file_name).write_bytes(content)
    complete = replace(prefix, bytes_count=len(content), sha256=await store.digest(prefix.file_name))
    await store.add(complete)
    return complete


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_prefix_comes_back_as_it_was(store):
    first = await add(store, named("p1"))
    second = await add(store, named("p2", boundaries=("x",), boundary_tokens=(7,), conversation_id="c1"))
    assert sorted(await store.prefixes(), key=lambda each: each.id) == [first, second]
    assert first.sha256 == hashlib.sha256(b"data").hexdigest()


async def test_every_field_has_a_column_of_its_own(store):
    """Distinct values everywhere: two swapped columns would show."""
    numbers = {"tokens_count": 101, "prefill_seconds": 102.5, "created_at": 103.5, "last_used_at": 104.5}
    texts = {"model_id": "caf\\udce9", "conversation_id": "conversation"}
    added = await add(store, named("distinct", **numbers, **texts))
    assert list(await store.prefixes()) == [added]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE prefixes SET boundaries = '' WHERE id = 'p1'",
        "UPDATE prefixes SET boundary_tokens = '10' WHERE id = 'p1'",
        "UPDATE prefixes SET boundary_tokens = '10 x' WHERE id = 'p1'",
        "UPDATE prefixes SET tokens_count = 'many' WHERE id = 'p1'",
        "UPDATE prefixes SET prefill_seconds = 'long' WHERE id = 'p1'",
        "UPDATE prefixes SET file_name = x'ff' WHERE id = 'p1'",
    ],
)
async def test_an_entry_that_cannot_be_understood_goes_and_the_rest_stays(store, database, caplog, damage):
    sound = await add(store, named("sound"))
    await add(store, named("p1"))
    await database.run(lambda: database.sqlite.execute_sql(damage))
    assert await store.prefixes() == [sound]
    assert "malformed entries of prefixes are removed" in caplog.messages
    assert names_in(store.folder) == {"sound.kv"}
    assert await database.run(lambda: PrefixRow.select().count(database.sqlite)) == 1


async def test_its_owner_alone_reads_it(store):
    (store.folder / "p1.kv").write_bytes(b"data")
    (store.folder / "p1.kv").chmod(0o644)
    await store.add(PREFIX)
    assert stat.S_IMODE((store.folder / "p1.kv").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


async def test_a_folder_that_others_could_enter_is_closed(store):
    store.folder.chmod(0o755)
    await store.prefixes()
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


async def test_removing_deletes_file_and_entry_and_may_come_twice(store):
    await add(store, named("p1"))
    kept = await add(store, named("p2"))
    await store.remove(["p1", "nowhere"])
    await store.remove(["p1"])
    assert list(await store.prefixes()) == [kept]
    assert names_in(store.folder) == {"p2.kv"}


async def test_a_use_is_remembered(store):
    await add(store, named("p1"))
    await store.touch("p1", 1_800_000_000.0)
    await store.touch("nowhere", 1.0)
    assert [each.last_used_at for each in await store.prefixes()] == [1_800_000_000.0]


async def test_strange_files_and_entries_without_a_whole_file_go(store, caplog):
    kept = await add(store, named("kept"))
    await add(store, named("lost"))
    await add(store, named("short"))
    (store.folder / "lost.kv").unlink()
    (store.folder / "short.kv").write_bytes(b"dat")
    (store.folder / "orphan.kv").write_bytes(b"half a state")
    (store.folder / "link.kv").symlink_to(store.folder / "kept.kv")
    (store.folder / "a folder").mkdir()
    assert list(await store.prefixes()) == [kept]
    assert names_in(store.folder) == {"kept.kv", "a folder"}
    assert [record.message for record in caplog.records] == [
        "saved prefixes without their file are forgotten",
        "strange files are removed",
    ]
    assert list(await store.prefixes()) == [kept]


async def test_a_digest_is_that_of_the_file_as_it_is_now(store):
    path = store.folder / "p1.kv"
    assert await store.digest("p1.kv") == ""
    path.write_bytes(b"data")
    both = await asyncio.gather(store.digest("p1.kv"), store.digest("p1.kv"))
    assert both == [hashlib.sha256(b"data").hexdigest()] * 2
    with path.open("r+b") as file:
        file.write(b"d4ta")
    os.utime(path, ns=(0, 0))
    assert await store.digest("p1.kv") == hashlib.sha256(b"d4ta").hexdigest()
    await store.discard_file("p1.kv")
    assert await store.digest("p1.kv") == ""


async def test_what_is_no_plain_file_is_never_waited_for_and_goes(store):
    os.mkfifo(store.folder / "pipe.kv")
    (store.folder / "folder.kv").mkdir()
    for name in ("pipe.kv", "folder.kv"):
        assert await store.digest(name) == ""
        await store.discard_file(name)
    assert [path.name for path in store.folder.iterdir()] == ["folder.kv"]


async def test_no_name_leads_out_of_the_folder(store):
    outside = store.folder.parent / "outside"
    outside.write_bytes(b"mine")
    await store.discard_file("../outside")
    assert outside.exists()
    assert await store.digest("../outside") == ""


async def test_an_entry_needs_its_file(store):
    with pytest.raises(StorageFailed, match="cannot be used"):
        await store.add(PREFIX)
    assert list(await store.prefixes()) == []


async def test_a_folder_that_cannot_be_written_is_said(database, read_only_folder, unprivileged):
    store = FilePrefixStore(database, read_only_folder / "prefixes")
    with unprivileged(), pytest.raises(StorageFailed, match=r"prefixes cannot be used \(Permission denied\)"):
        await store.prefixes()
    other = FilePrefixStore(database, read_only_folder)
    with unprivileged(), pytest.raises(StorageFailed, match="cannot be used"):
        await other.prefixes()


async def test_free_bytes_are_those_of_the_disk(store):
    assert 0 < await store.free_bytes() < 1 << 60


FULL = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from autotuned.core.errors import StorageFull
from autotuned.storage.db import Database
from autotuned.storage.prefixes import FilePrefixStore
sys.path.insert(0, sys.argv[2])
from test_storage_prefixes import PREFIX

async def main(folder):
    async with Database(folder / "autotune.db") as database:
        store = FilePrefixStore(database, folder / "prefixes")
        await store.prefixes()
        (store.folder / "p1.kv").write_bytes(bytes(200_000))
        await store.add(replace(PREFIX, bytes_count=200_000))
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                print("filled", await store.free_bytes())
        try:
            for number in range(1000):
                (store.folder / f"q{number}.kv").touch()
                await store.add(replace(PREFIX, id=f"q{number}", file_name=f"q{number}.kv", bytes_count=0))
        except (StorageFull, OSError) as error:
            print(type(error).__name__)
        await store.remove(["p1"])
        print("p1" in {each.id for each in await store.prefixes()})

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_is_said_and_deleting_still_works(tmp_path: Path, run_on_disk):
    printed = run_on_disk(FULL, tmp_path, "size=1m", Path(__file__).parent)
    assert printed.split() == ["filled", "0", "StorageFull", "False"]


KILLED = """
import asyncio, os, signal, sys
from dataclasses import replace
from pathlib import Path
from autotuned.storage.db import Database
from autotuned.storage.prefixes import FilePrefixStore
sys.path.insert(0, sys.argv[2])
from test_storage_prefixes import PREFIX

async def main(folder):
    async with Database(folder / "autotune.db") as database:
        store = FilePrefixStore(database, folder / "prefixes")
        await store.prefixes()
        for name in ("kept", "going"):
            (store.folder / f"{name}.kv").write_bytes(b"data")
            await store.add(replace(PREFIX, id=name, file_name=f"{name}.kv"))
        (store.folder / "coming.kv").write_bytes(b"da")
        unlink = store._unlink
        def die(names):
            unlink(names)
            os.kill(os.getpid(), signal.SIGKILL)
        store._unlink = die
        await store.remove(["going"])

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_a_kill_leaves_nothing_that_the_next_start_does_not_clear_up(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)
    )
    assert await process.wait() == -signal.SIGKILL
    folder = tmp_path / "prefixes"
    assert names_in(folder) == {"kept.kv", "coming.kv"}
    async with Database(tmp_path / "autotune.db") as database:
        assert [each.id for each in await FilePrefixStore(database, folder).prefixes()] == ["kept"]
    assert names_in(folder) == {"kept.kv"}
