"""The services of the daemon around a scripted downloader, on a recorded machine."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from autotuned.core.engine import EngineState
from autotuned.core.memory import SwapPolicy
from autotuned.core.registry import Registry
from autotuned.core.settings import ModelSettings
from autotuned.services.catalogue import Catalogue
from autotuned.services.hardware import HardwareReports
from autotuned.services.learning import Learning
from autotuned.services.models import Models
from autotuned.services.pulls import Pulls
from autotuned.services.recommend import Recommender
from autotuned.services.residency import Residency
from tests.examples import DEFAULTS
from tests.machines import MACHINES
from tests.services.instant import NoProcesses
from tests.services.scripted import HandClock, NoStore, ScriptedEngine, ScriptedKeeper, entry
from tests.services.scripted_downloads import ScriptedDownloader

LAPTOP = next(each for each in MACHINES if each.key == "laptop-16")
PATIENCE_SECONDS = 10.0


@dataclass
class Server(ScriptedEngine):
    """An engine that pulls for itself, here or elsewhere, in any state; ``found`` is that at the next look."""

    name: str = "ollama"
    entries: tuple = ()
    pulls: bool = True
    is_local: bool = True
    state: EngineState = EngineState.READY
    detail: str = ""
    found: EngineState | None = None
    looks_count: int = 0

    async def refresh(self):
        self.looks_count += 1
        await asyncio.sleep(0)
        self.state = self.found or self.state

    def capabilities(self):
        return replace(super().capabilities(), is_local=self.is_local)

    def status(self):
        return replace(super().status(), state=self.state, detail=self.detail)

    async def models(self):
        return self.entries if self.state is EngineState.READY else ()


@dataclass
class RecordedProbe:
    """Tells a recorded machine and these applications."""

    hardware: object = LAPTOP.hardware
    programs: tuple = ()

    async def read(self):
        await asyncio.sleep(0)
        return self.hardware

    async def applications(self):
        await asyncio.sleep(0)
        return self.programs


class RecordedMemory(NoProcesses):
    def __init__(self, reading=LAPTOP.memory):
        self.reading = reading

    async def read_memory(self):
        return self.reading


@dataclass
class ListedModels:
    """A registry of these models."""

    models: tuple = ()
    problems: tuple = ()
    own_file: Path = Path("/data/models.toml")

    async def read(self):
        return Registry(models=self.models, problems=self.problems)


@dataclass
class Surroundings:
    """What the services stand on."""

    registry: ListedModels = field(default_factory=ListedModels)
    probe: RecordedProbe = field(default_factory=RecordedProbe)
    memory: object = LAPTOP.memory
    prefer: str = "auto"


class PullHouse:
    """The services around these engines, of which the first, "llamacpp", lists what was downloaded.

    Made on a running loop; at its end nothing may run any more.
    """

    def __init__(self, *others, sources=None, surroundings=None, own=None):
        self.surroundings = surroundings or Surroundings()
        self.own = own or ScriptedEngine(entries=())
        self.downloader = ScriptedDownloader(sources, self._arrive)
        self.clock = HandClock()
        self.machine = RecordedMemory(self.surroundings.memory)
        self.learning = Learning(store=NoStore())
        self.residency = Residency(machine=self.machine, clock=self.clock)
        self.engines = (self.own, *others)
        self.catalogue = Catalogue(self.engines)
        self.models = Models(
            catalogue=self.catalogue,
            settings=ModelSettings(),
            defaults=DEFAULTS,
            swap_policy=SwapPolicy.ALLOW,
            machine=self.machine,
            residency=self.residency,
            learning=self.learning,
            keeper=ScriptedKeeper(),
            clock=self.clock,
            prefer=self.surroundings.prefer,
        )
        self.reports = HardwareReports(
            probe=self.surroundings.probe,
            residency=self.residency,
            models=self.models,
            registry=self.surroundings.registry,
            defaults=DEFAULTS,
        )
        self.recommender = Recommender(
            registry=self.surroundings.registry,
            reports=self.reports,
            models=self.models,
            defaults=DEFAULTS,
        )
        self.pulls = Pulls(
            downloader=self.downloader,
            models=self.models,
            reports=self.reports,
            recommender=self.recommender,
            defaults=DEFAULTS,
            clock=self.clock,
        )

    def _arrive(self, what):
        """One repository after the other may have a file of this name."""
        engine = next(each for each in self.engines if each.name == what.engine)
        others = tuple(each for each in engine.entries if each.id != what.model_id)
        engine.entries = (*others, replace(entry(what.model_id), engine=what.engine))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for download in self.downloader.downloads:
            download.may_end.set()
        await self.pulls.close()
        assert not self.downloader.running
        assert not any(getattr(engine, "pulling", ()) for engine in self.engines)
        await self.models.close()
        await self.learning.close()


class Caller:
    """Somebody who pulls: what was told so far in ``told``, and its end in ``task``."""

    def __init__(self, pulls, model, engine="", *, allow_too_large=False):
        self.told = []
        self._news = asyncio.Event()
        self.task = asyncio.create_task(
            self._follow(pulls.pull(model, engine, allow_too_large=allow_too_large))
        )

    async def _follow(self, pull):
        try:
            async with aclosing(pull) as events:
                async for event in events:
                    self.told.append(event)
                    self._news.set()
        finally:
            self._news.set()

    def all(self, kind):
        return [event for event in self.told if isinstance(event, kind)]

    async def until(self, condition):
        """Waits until ``condition`` holds of what was told; fails where the pull ends before."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition(self):
                assert not self.task.done(), self.task
                self._news.clear()
                await self._news.wait()

    async def leave(self):
        """Goes as a client does that was interrupted."""
        self.task.cancel()
        await asyncio.wait([self.task])
        assert self.task.cancelled()


async def until(condition):
    """Waits for what other tasks do without waiting for time."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for does not tell
            await asyncio.sleep(0)


async def pulling(server):
    """The pull of a server, once it runs."""
    await until(lambda: server.pulling)
    return server.pulling[0]


async def downloaded(house, caller):
    """What the pull ends with, when all of it came."""
    await until(lambda: any(each.is_fetching for each in house.downloader.downloads) or caller.task.done())
    if caller.task.done():
        await caller.task
    next(each for each in house.downloader.downloads if each.is_fetching).finish()
    await caller.task
    return caller.told[-1]
