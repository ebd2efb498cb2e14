"""What runs models dies and hangs, at random, while one daemon goes on serving: nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from autotune.aio_client import AsyncClient

from tests import watched_daemon
from tests.e2e.conftest import RunningDaemon, running_daemon, short_home
from tests.engine_accidents import ANSWER, ENVIRONMENT, ask, cause_accidents
from tests.engine_house import ENGINES, House, open_house
from tests.fakes.serving import is_alive

ACCIDENTS_COUNT = 50
SEED = 31
COPIES_COUNT = 4
SETTLE_SECONDS = 20.0
SAME_SECONDS = 1.0
POOL_THREADS_COUNT = min(32, (os.cpu_count() or 1) + 4)
"""The threads of the event loop's pool are made when they are first needed together, and stay."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a daemon holds. ``tasks`` are counted by what they run."""

    descriptors_count: int
    threads_count: int
    processes_count: int
    runtime_files_count: int
    tasks: Counter[str]

    def more_than(self, other: Holdings) -> list[str]:
        """Of what there is more than in the other, in words."""
        room = {
            "descriptors_count": 0,
            "threads_count": POOL_THREADS_COUNT,
            "processes_count": 0,
            "runtime_files_count": 0,
        }
        pairs = [(name, getattr(other, name), getattr(self, name)) for name in room]
        more = [
            f"{name}: {before} before, {now} now" for name, before, now in pairs if now > before + room[name]
        ]
        return more + [f"task {name}: {count} more" for name, count in (self.tasks - other.tasks).items()]


async def holdings(daemon: RunningDaemon, tasks_file: Path) -> Holdings:
    """What it holds now."""
    process = psutil.Process(daemon.process.pid)
    tasks = await watched_daemon.tasks_of(process.pid, tasks_file)
    return Holdings(
        descriptors_count=process.num_fds(),
        threads_count=process.num_threads(),
        processes_count=len([each for each in process.children(recursive=True) if is_alive(each)]),
        runtime_files_count=_files_count(daemon.runtime),
        tasks=Counter(tasks),
    )


def _files_count(folder: Path) -> int:
    return len(list(folder.iterdir()))


async def at_rest(daemon: RunningDaemon, tasks_file: Path) -> Holdings:
    """What it holds once that has not changed for a while."""
    held, same_since = await holdings(daemon, tasks_file), time.monotonic()
    while time.monotonic() - same_since < SAME_SECONDS:
        await asyncio.sleep(0.1)
        now = await holdings(daemon, tasks_file)
        if now != held:
            held, same_since = now, time.monotonic()
    return held


async def left(daemon: RunningDaemon, tasks_file: Path, before: Holdings) -> list[str]:
    """What it holds more than before, once it has had time to let go of it."""
    deadline = time.monotonic() + SETTLE_SECONDS
    more = (await holdings(daemon, tasks_file)).more_than(before)
    while more and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        more = (await holdings(daemon, tasks_file)).more_than(before)
    return more


async def ask_all(daemon: RunningDaemon, house: House) -> None:
    """Has every model answer, which loads it where it is not."""
    async with AsyncClient(daemon.address) as client, asyncio.TaskGroup() as group:

        async def ask_each(engine: str) -> None:
            for model in house.models[engine]:
                assert await ask(client, engine, model) == ANSWER

        for engine in house.models:
            group.create_task(ask_each(engine))


@pytest.mark.timeout(240)
async def test_fifty_accidents_leave_a_daemon_that_serves_and_holds_what_it_held_before():
    with short_home() as folder:
        async with open_house(folder, copies_count=COPIES_COUNT) as house:
            await _fifty_accidents(folder, house)


async def _fifty_accidents(folder: Path, house: House) -> None:
    wrapper = (sys.executable, watched_daemon.__file__, str(folder / "tasks"))
    environment = house.environment | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    with running_daemon(wrapper=wrapper, **environment) as daemon:
        await ask_all(daemon, house)
        before = await at_rest(daemon, folder / "tasks")
        report = await cause_accidents(
            count=ACCIDENTS_COUNT,
            seed=SEED,
            models=house.models,
            house=house,
            address=daemon.address,
            daemon_id=daemon.process.pid,
        )
        assert len(report.outcomes) == ACCIDENTS_COUNT
        assert {outcome.accident.engine for outcome in report.outcomes} == set(ENGINES)
        # Most blows hit: a request that outran its own would prove nothing.
        assert report.reasons[""] < ACCIDENTS_COUNT // 2, report.reasons
        await ask_all(daemon, house)
        assert await left(daemon, folder / "tasks", before) == []
