"""Jobs: they come back, they fail alone, they end with their owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from autotuned.jobs import Job, Jobs

DEADLINE_SECONDS = 10


class Counter:
    """Counts its runs and tells when there were enough."""

    def __init__(self, enough: int) -> None:
        self.runs = 0
        self._enough = enough
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        self.runs += 1
        if self.runs >= self._enough:
            self.done.set()


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        await event.wait()


def job(name: str, run: Callable[[], Awaitable[None]], every_seconds: float = 0.01) -> Job:
    return Job(name, every_seconds, run)


async def test_a_job_comes_back():
    counter = Counter(3)
    async with Jobs([job("count", counter)]):
        await until(counter.done)
    assert counter.runs >= 3


async def test_an_empty_table_is_fine():
    async with Jobs([]):
        pass


async def test_a_failure_is_logged_once_a_run_and_stops_nobody(caplog: pytest.LogCaptureFixture):
    healthy, failures = Counter(3), Counter(3)

    async def broken() -> None:
        await failures()
        raise RuntimeError("the disk is on fire")

    async with Jobs([job("broken", broken), job("healthy", healthy)]):
        await until(failures.done)
        await until(healthy.done)
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(errors) == failures.runs
    assert {record.getMessage() for record in errors} == {"job failed"}
    assert all(record.fields == {"job": "broken"} and record.exc_info for record in errors)


async def test_a_job_never_overlaps_itself(caplog: pytest.LogCaptureFixture):
    others = Counter(10)
    inside, most = 0, 0
    release, entered = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        entered.set()
        await release.wait()
        inside -= 1

    async with Jobs([job("slow", slow), job("others", others)]):
        await until(entered)
        await until(others.done)
        release.set()
    assert most == 1
    assert caplog.records == []  # a turn that is missed is nothing to say


async def test_leaving_cancels_and_waits(caplog: pytest.LogCaptureFixture):
    entered, cleaned = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    before = asyncio.all_tasks()
    async with Jobs([job("long", long)]):
        await until(entered)
    assert cleaned.is_set()
    assert asyncio.all_tasks() == before
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_nothing_runs_after_the_end():
    counter, later = Counter(1), Counter(3)
    async with Jobs([job("count", counter, 0.001)]):
        await until(counter.done)
    runs = counter.runs
    async with Jobs([job("later", later)]):
        await until(later.done)
    assert counter.runs == runs


async def test_between_jobs_nothing_wakes():
    jobs = Jobs([job("hourly", Counter(1), 3600)])
    async with jobs:
        await asyncio.sleep(0)
        due_seconds = jobs._scheduler._timeout.when() - asyncio.get_running_loop().time()
    assert 3590 < due_seconds <= 3600
