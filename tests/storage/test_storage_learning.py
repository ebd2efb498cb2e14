"""What was learned: it comes back as it was, and a file of another form does no harm."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autotuned.core.errors import StorageFull
from autotuned.core.learning import Learned, MeasuredLoad, SessionSize
from autotuned.core.memory import Footprint
from autotuned.storage import learning
from autotuned.storage.db import Database
from autotuned.storage.learning import SqliteLearningStore
from autotuned.storage.tables import LearnedModelRow
from tests.storage.conftest import SHAPE

DATA = Path(__file__).parents[1] / "data"
LEARNED = Learned(
    loads=(
        MeasuredLoad(
            SHAPE,
            Footprint(
                weights_bytes=1,
                repacked_weights_bytes=2,
                kv_cache_bytes=3,
                compute_bytes=4,
                process_bytes=5,
                host_prompt_cache_bytes=6,
            ),
        ),
    ),
    prefill_tokens_per_second=123.5,
    tokens_per_byte=0.25,
    usual_context_tokens=4096,
)
SESSION = SessionSize(
    session="s1",
    client="editor",
    model_digest="digest",
    kind="agent",
    largest_tokens=3000,
    turns_count=7,
    ended_at=1000.5,
)


@pytest.fixture
def store(database):
    return SqliteLearningStore(database)


async def test_what_was_learned_comes_back_as_it_was(store):
    await store.remember("a", LEARNED)
    await store.remember("b", Learned())
    assert await store.learned() == {"a": LEARNED, "b": Learned()}


async def test_the_latest_replaces_what_was_known(store):
    await store.remember("a", Learned(tokens_per_byte=0.5))
    await store.remember("a", LEARNED)
    assert await store.learned() == {"a": LEARNED}


@pytest.mark.parametrize("loads_json", ["[", '[{"shape": {}}]', '"none"'])
async def test_loads_of_another_form_are_forgotten_and_the_rest_is_kept(store, database, loads_json):
    await store.remember("a", LEARNED)
    await database.run(lambda: LearnedModelRow.update(loads_json=loads_json).execute(database.sqlite))
    assert await store.learned() == {"a": replace(LEARNED, loads=())}


async def test_sessions_come_back_oldest_first_and_replace_themselves(store):
    older = replace(SESSION, session="s0", ended_at=900.0)
    await store.remember_session(replace(SESSION, largest_tokens=10, ended_at=800.0))
    await store.remember_session(SESSION)
    await store.remember_session(older)
    assert await store.sessions(0.0) == [older, SESSION]
    assert await store.sessions(900.0) == [SESSION]


async def test_prune_forgets_old_sessions_alone(store):
    for age_seconds in (0, 99, 101):
        await store.remember_session(
            replace(SESSION, session=f"age-{age_seconds}", ended_at=10_000.0 - age_seconds)
        )
    assert await store.prune(100.0, 10_000.0) == 1
    assert [size.session for size in await store.sessions(0.0)] == ["age-99", "age-0"]


async def test_of_each_model_the_latest_sessions_alone_are_read_and_kept(store, monkeypatch):
    monkeypatch.setattr(learning, "MOST_SESSIONS", 2)
    for number in range(4):
        for digest in ("a", "b"):
            await store.remember_session(
                replace(SESSION, session=f"{digest}{number}", model_digest=digest, ended_at=1000.0 + number)
            )
    kept = ["a2", "b2", "a3", "b3"]
    assert sorted(size.session for size in await store.sessions(0.0)) == sorted(kept)
    assert await store.prune(1e6, 2000.0) == 4
    monkeypatch.setattr(learning, "MOST_SESSIONS", 9)
    assert sorted(size.session for size in await store.sessions(0.0)) == sorted(kept)


async def test_a_full_disk_is_said(store, database):
    pages = await database.run(lambda: database.sqlite.pragma("page_count"))
    await database.run(lambda: database.sqlite.pragma("max_page_count", pages))

    async def fill():
        for number in range(10_000):
            await store.remember(str(number), LEARNED)

    with pytest.raises(StorageFull):
        await fill()


async def test_the_first_released_file_has_room_for_it(tmp_path):
    path = tmp_path / "autotune.db"
    shutil.copyfile(DATA / "requests_v1.sqlite", path)
    async with Database(path) as database:
        store = SqliteLearningStore(database)
        await store.remember("a", LEARNED)
        await store.remember_session(SESSION)
    async with Database(path) as database:
        store = SqliteLearningStore(database)
        assert await store.learned() == {"a": LEARNED}
        assert await store.sessions(0.0) == [SESSION]
