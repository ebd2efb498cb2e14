"""What the services learn, when they write it, and what a full disk costs."""

from __future__ import annotations

import asyncio
import logging

import pytest

from autotuned.core.chat import ChatInput, Message, RawPrompt, Role, TextPart, Tool
from autotuned.core.errors import StorageFull
from autotuned.core.learning import Learned
from autotuned.core.memory import Footprint
from autotuned.policy.prompt import messages_count, prompt_bytes
from autotuned.services.learning import Learning
from autotuned.services.write_behind import MOST_WAITING, WriteBehind
from autotuned.storage.db import Database
from autotuned.storage.learning import SqliteLearningStore
from tests.engines.shapes import shape
from tests.services.scripted import NoStore

FOOTPRINT = Footprint(
    weights_bytes=1, repacked_weights_bytes=2, kv_cache_bytes=3, compute_bytes=4, process_bytes=5
)
NEVER_SECONDS = 3600.0


class Disk:
    """Remembers every write; may be full."""

    def __init__(self):
        self.writes = []
        self.full = False
        self.written = asyncio.Event()

    async def write(self, key, value):
        if self.full:
            raise StorageFull("The disk is full.")
        self.writes.append((key, value))
        self.written.set()


@pytest.fixture
def disk():
    return Disk()


async def test_of_many_values_of_one_key_the_latest_is_written_once(disk):
    behind = WriteBehind(what="numbers", write=disk.write, interval_seconds=NEVER_SECONDS)
    for number in range(100):
        behind.put("a", number)
        behind.put("b", -number)
    assert disk.writes == []
    await behind.close()
    assert disk.writes == [("a", 99), ("b", -99)]


async def test_writes_happen_by_themselves(disk):
    behind = WriteBehind(what="numbers", write=disk.write, interval_seconds=0.0)
    for number in (1, 2):
        disk.written.clear()
        behind.put("a", number)
        async with asyncio.timeout(10):
            await disk.written.wait()
    await behind.close()
    assert disk.writes == [("a", 1), ("a", 2)]


async def test_what_comes_while_a_write_is_under_way_is_written_after_it(disk):
    may_write = asyncio.Event()
    begun = asyncio.Event()

    async def write(key, value):
        begun.set()
        await may_write.wait()
        await disk.write(key, value)

    behind = WriteBehind(what="numbers", write=write, interval_seconds=0.0)
    behind.put("a", 1)
    await begun.wait()
    behind.put("a", 2)
    may_write.set()
    await behind.close()
    assert disk.writes == [("a", 1), ("a", 2)]


async def test_a_full_disk_is_said_once_and_what_waits_is_written_when_there_is_room(disk, caplog):
    behind = WriteBehind(what="numbers", write=disk.write, interval_seconds=0.0)
    disk.full = True
    with caplog.at_level(logging.ERROR):
        for number in range(3):
            behind.put("a", number)
            while behind._task is not None:
                await asyncio.wait([behind._task])
    assert [record.message for record in caplog.records] == ["nothing is written"]
    disk.full = False
    await behind.close()
    assert disk.writes == [("a", 2)]


async def test_what_waits_for_a_full_disk_is_bounded(disk):
    behind = WriteBehind(what="numbers", write=disk.write, interval_seconds=NEVER_SECONDS)
    for number in range(3 * MOST_WAITING):
        behind.put(str(number), number)
    await behind.close()
    assert [value for _, value in disk.writes] == list(range(2 * MOST_WAITING, 3 * MOST_WAITING))


async def test_one_key_that_cannot_be_written_does_not_hold_up_the_others(disk):
    async def write(key, value):
        if key == "bad":
            raise StorageFull("The disk is full.")
        await disk.write(key, value)

    behind = WriteBehind(what="numbers", write=write, interval_seconds=NEVER_SECONDS)
    behind.put("bad", 1)
    behind.put("good", 2)
    await behind.close()
    assert disk.writes == [("good", 2)]


async def test_what_was_learned_survives_a_restart(tmp_path):
    async with Database(tmp_path / "autotune.db") as database:
        learning = Learning(store=SqliteLearningStore(database))
        await learning.open()
        assert learning.of("a") == Learned()
        learning.loaded("a", shape(), FOOTPRINT)
        learning.counted("a", 1000, 900, 0)
        learning.served("a", 1000, 2.0)
        learning.used("a", 3000)
        known = learning.of("a")
        await learning.close()
    assert (known.tokens_per_byte, known.prefill_tokens_per_second) == (0.9, 500.0)
    assert known.usual_context_tokens == 3000
    assert [load.footprint for load in known.loads] == [FOOTPRINT]
    async with Database(tmp_path / "autotune.db") as database:
        learning = Learning(store=SqliteLearningStore(database))
        await learning.open()
        assert learning.of("a") == known
        await learning.close()


async def test_what_teaches_nothing_is_not_written():
    class Store(NoStore):
        async def remember(self, digest, learned):
            pytest.fail("nothing was learned")

    learning = Learning(store=Store(), interval_seconds=0.0)
    learning.counted("a", 10, 5, 1)
    learning.served("a", 10, 0.1)
    await learning.close()


async def test_a_store_that_cannot_be_read_is_an_empty_one(caplog):
    class Store(NoStore):
        async def learned(self):
            raise StorageFull("The disk is full.")

    learning = Learning(store=Store())
    with caplog.at_level(logging.ERROR):
        await learning.open()
    assert learning.of("a") == Learned()
    assert [record.message for record in caplog.records] == ["what was learned cannot be read"]


async def test_after_a_prompt_was_counted_the_same_prompt_is_not_underestimated():
    tools = tuple(Tool(f"tool_{number}", "does something", '{"type":"object"}') for number in range(40))
    prompts = (
        RawPrompt("word " * 200),
        ChatInput((Message(Role.USER, (TextPart("word " * 200),)),)),
        ChatInput((Message(Role.USER, (TextPart("go"),)),), tools),
    )
    for prompt in prompts:
        learning = Learning(store=NoStore())
        size, messages = prompt_bytes(prompt), messages_count(prompt)
        counted = int(size * 0.7)
        learning.counted("a", size, counted, messages)
        assert counted <= learning.estimate("a", size, messages) <= counted + 1
        await learning.close()
