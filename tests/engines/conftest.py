"""What tests of engines share: folders, a clock, the pocket model, and proofs that nothing is left."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from autotuned.core.ports import Clock
from autotuned.core.settings import LlamacppSettings, PathSettings
from autotuned.engines.llamacpp.engine import LlamacppEngine

pytest.register_assert_rewrite("tests.suites.engine_suite")


class SystemClock(Clock):
    """The real time."""

    def now(self):
        return time.time()

    def monotonic(self):
        return time.monotonic()


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = 20.0) -> None:
    """Returns when the condition holds; fails when it does not within the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.005)


def is_alive(process_id: int) -> bool:
    """Whether a process still has memory; one that only waits to be collected has not."""
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants() -> set[int]:
    """Living processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True) if is_alive(child.pid)}


def descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    return sorted(found)


@pytest.fixture
def paths():
    """Folders with paths short enough for sockets."""
    root = Path(tempfile.mkdtemp(prefix="at-"))
    folders = PathSettings(data=root / "data", runtime=root / "run", state=root / "state")
    for folder in (folders.data / "models", folders.runtime, folders.state):
        folder.mkdir(parents=True)
    yield folders
    shutil.rmtree(root)


@pytest.fixture
async def make_engine(paths):
    """``make_engine(**settings)`` makes an engine that is closed, with proof, after the test."""
    engines = []

    def make(*, files=(), **settings):
        engine = LlamacppEngine(
            paths=paths, settings=LlamacppSettings(**settings), files=files, clock=SystemClock()
        )
        engines.append(engine)
        return engine

    before = descendants()
    yield make
    for engine in engines:
        await engine.close()
    await until(lambda: descendants() <= before, "every process of the engine is gone")
    assert list(paths.runtime.iterdir()) == []
