"""A whole daemon in this process whose engines, downloads and machine are the test's."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import autotune

from autotuned.core.settings import PathSettings, Settings
from autotuned.daemon import Parts, run
from autotuned.hardware.probe import PsutilMachine
from tests import alone
from tests.services.pull_house import LAPTOP, RecordedProbe
from tests.services.scripted import ScriptedEngine, entry
from tests.services.scripted_downloads import ScriptedDownloader

PATIENCE_SECONDS = 20.0


class RecordedMachine(PsutilMachine):
    """This machine with another one's memory."""

    reading = LAPTOP.memory

    async def read_memory(self):
        return self.reading


@dataclass
class Served:
    client: autotune.AsyncClient
    engines: tuple
    downloader: ScriptedDownloader
    data: Path
    stop: asyncio.Event

    def arrive(self, what):
        """What was downloaded is in the list of its engine."""
        engine = next(each for each in self.engines if each.name == what.engine)
        others = tuple(each for each in engine.entries if each.id != what.model_id)
        engine.entries = (*others, replace(entry(what.model_id), engine=what.engine))


@asynccontextmanager
async def served(*engines, sources=None, probe=None, own_registry=""):
    """A daemon with these engines, or with an empty one; nothing is downloaded any more at its end."""
    home = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    settings = Settings(
        paths=PathSettings(data=home / "data", runtime=home / "run", state=home / "state"), **alone.SETTINGS
    )
    if own_registry:
        settings.paths.data.mkdir()
        settings.paths.own_registry.write_text(own_registry)
    engines = engines or (ScriptedEngine(entries=()),)
    downloader = ScriptedDownloader(sources)
    parts = Parts(
        engines=lambda _settings, _clock: engines,
        machine=RecordedMachine,
        hardware=lambda _settings: probe or RecordedProbe(),
        downloader=lambda _settings: downloader,
    )
    stop, serving = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(run(settings, parts=parts, stop=stop, on_serving=serving.set))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await serving.wait()
        async with autotune.AsyncClient(f"unix:{home / 'run' / 'autotuned.sock'}") as client:
            house = Served(client, engines, downloader, settings.paths.data, stop)
            downloader.arrive = house.arrive
            yield house
    finally:
        stop.set()
        for download in downloader.downloads:
            download.may_end.set()
        await task
        assert not downloader.running
        shutil.rmtree(home)
