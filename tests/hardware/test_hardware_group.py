"""Readings from within a real control group."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.memory_groups import CannotLimitMemory, MemoryGroup, memory_group

MIB = 1 << 20
LIMIT_BYTES = 128 * MIB
HELD_BYTES = 32 * MIB
FILE_BYTES = 24 * MIB
SLACK_BYTES = 4 * MIB

READER = """
import asyncio, dataclasses, json, mmap, os, sys
from autotuned.hardware.probe import PsutilMachine
machine, held = PsutilMachine(), []
for line in sys.stdin:
    what, size, path = json.loads(line)
    if what == "hold":
        held.append(bytearray(os.urandom(1) * size))
    elif what == "release":
        held.clear()
    elif what == "cache":
        with open(path, "wb") as file:
            file.write(os.urandom(size))
            os.fsync(file.fileno())
    elif what == "map":
        with open(path, "rb") as file:
            held.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
            sum(held[-1][::4096])
    print(json.dumps(dataclasses.asdict(asyncio.run(machine.read_memory()))), flush=True)
"""


class Reader:
    """A process in the group, which does as it is told and then reads memory."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self, what: str = "", size: int = 0, path: str = "") -> dict[str, int]:
        self._process.stdin.write(json.dumps([what, size, path]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        with memory_group(LIMIT_BYTES) as made:
            yield made
    except CannotLimitMemory as reason:
        pytest.skip(str(reason))


@pytest.fixture
def reader(group: MemoryGroup) -> Iterator[Reader]:
    with subprocess.Popen(
        [*group.wrapper, sys.executable, "-c", READER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Reader(process)
        process.stdin.close()


def test_the_limit_is_the_memory_there_is(group, reader):
    reading = reader.read()
    assert reading["limit_bytes"] == reading["total_bytes"] == LIMIT_BYTES
    assert 0 < reading["available_bytes"] < LIMIT_BYTES
    assert (reading["swap_total_bytes"], reading["swap_free_bytes"]) == (0, 0)


def test_a_limit_that_changes_shows_at_once(group, reader):
    before = reader.read()
    group.limit(LIMIT_BYTES // 2)
    after = reader.read()
    assert after["total_bytes"] == LIMIT_BYTES // 2
    shrunk = before["available_bytes"] - after["available_bytes"]
    assert shrunk == pytest.approx(LIMIT_BYTES // 2, abs=SLACK_BYTES)


def test_what_is_held_is_not_available_until_it_is_released(group, reader):
    before = reader.read()["available_bytes"]
    held = reader.read("hold", HELD_BYTES)["available_bytes"]
    assert before - held == pytest.approx(HELD_BYTES, abs=SLACK_BYTES)
    released = reader.read("release")["available_bytes"]
    assert before - released == pytest.approx(0, abs=SLACK_BYTES)


def test_cache_is_available_and_mapped_pages_are_not(group, reader, tmp_path):
    path = str(tmp_path / "weights")
    before, used_before = reader.read()["available_bytes"], group.used_bytes
    cached = reader.read("cache", FILE_BYTES, path)["available_bytes"]
    assert group.used_bytes - used_before > FILE_BYTES - SLACK_BYTES
    assert before - cached == pytest.approx(0, abs=SLACK_BYTES)
    mapped = reader.read("map", 0, path)["available_bytes"]
    assert before - mapped == pytest.approx(FILE_BYTES, abs=SLACK_BYTES)


def test_the_memory_of_others_in_the_group_counts(group, reader):
    before = reader.read()["available_bytes"]
    with subprocess.Popen(
        [*group.wrapper, sys.executable, "-c", f"b = b'x' * {HELD_BYTES}; print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        other.stdout.readline()
        assert before - reader.read()["available_bytes"] > HELD_BYTES
        other.stdin.write(b"\n")


def test_what_the_machine_has_is_not_what_the_group_has(reader):
    assert reader.read()["total_bytes"] < psutil.virtual_memory().total


def test_the_group_is_gone_afterwards():
    try:
        with memory_group(LIMIT_BYTES) as made:
            sleeper = subprocess.Popen([*made.wrapper, "sleep", "60"], stdout=subprocess.DEVNULL)
            while sleeper.pid not in made.process_ids():
                os.sched_yield()
    except CannotLimitMemory as reason:
        pytest.skip(str(reason))
    assert not made.folder.exists()
    assert sleeper.wait() < 0
