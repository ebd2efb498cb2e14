"""What tests of engines share: folders, and engines that are closed with proof that nothing is left."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from autotuned.core.ports import Clock
from autotuned.core.settings import LlamacppSettings, PathSettings, PullSettings
from autotuned.engines.downloads.downloader import WorkerDownloader
from autotuned.engines.llamacpp.engine import LlamacppEngine
from autotuned.engines.stores.folders import NO_STORES
from tests.engines.processes import descendants, until

pytest.register_assert_rewrite("tests.suites")


class SystemClock(Clock):
    """The real time."""

    def now(self):
        return time.time()

    def monotonic(self):
        return time.monotonic()


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
def clock():
    return SystemClock()


@pytest.fixture
async def make_engine(paths, clock):
    """``make_engine(**settings)`` makes an engine that is closed, with proof, after the test."""
    engines = []

    def make(*, files=(), stores=NO_STORES, **settings):
        # Not whatever llama-server lies on PATH.
        settings = {"server": "embedded", **settings}
        engine = LlamacppEngine(
            paths=paths, settings=LlamacppSettings(**settings), files=files, clock=clock, stores=stores
        )
        engines.append(engine)
        return engine

    before = descendants()
    yield make
    for engine in engines:
        await engine.close()
    await until(lambda: descendants() <= before, "every process of the engine is gone")
    assert list(paths.runtime.iterdir()) == []


@pytest.fixture
async def engine(make_engine):
    """An engine with default settings."""
    return make_engine()


@pytest.fixture
async def pocket(engine):
    """The entry of the pocket model."""
    return next(entry for entry in await engine.models() if entry.id == "pocket")


@pytest.fixture
async def make_downloader(paths):
    """``make_downloader(registry_url, **settings)``; after the test no worker of any of them is left."""

    def make(registry_url, **settings):
        quick = {"disk_margin_mib": 0, "silence_timeout_seconds": 2.0, "patience_seconds": 20.0}
        return WorkerDownloader(
            settings=PullSettings(registry_url=registry_url, **{**quick, **settings}),
            registry_store=paths.registry_store,
            hub_cache=paths.data / "hub",
            runs_mlx=False,
            environment={"PATH": os.environ.get("PATH", os.defpath)},
        )

    before = descendants()
    yield make
    assert descendants() <= before
