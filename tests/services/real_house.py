"""The services as the daemon builds them, around real workers, SQLite and files."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from autotuned.core.chat import ChatInput, GenerationRequest, Message, Role, Sampling, TextPart
from autotuned.core.generation import Finished, Started, TextDelta
from autotuned.core.memory import SwapPolicy
from autotuned.core.ports import Clock
from autotuned.core.settings import (
    LlamacppSettings,
    ModelSettings,
    PathSettings,
    PrefixSettings,
    QueueSettings,
)
from autotuned.engines.llamacpp.engine import LlamacppEngine
from autotuned.hardware.probe import PsutilMachine
from autotuned.services.catalogue import Catalogue
from autotuned.services.inference import Inference
from autotuned.services.learning import Learning
from autotuned.services.models import Models
from autotuned.services.prefixes import Prefixes
from autotuned.services.residency import Residency
from autotuned.services.sessions import Sessions
from autotuned.storage.db import Database
from autotuned.storage.learning import SqliteLearningStore
from autotuned.storage.prefixes import FilePrefixStore
from autotuned.storage.requests import SqliteRequestLog
from tests.examples import DEFAULTS

GREEDY = Sampling(temperature=0.0)


class MovableClock(Clock):
    """The real time, and as many seconds as a test wants."""

    def __init__(self):
        self.ahead_seconds = 0.0

    def now(self):
        return time.time() + self.ahead_seconds

    def monotonic(self):
        return time.monotonic() + self.ahead_seconds


class RealHouse:
    """Everything but the wire. ``requests`` are the records so far."""

    def __init__(self, *, database, engine, prefixes, clock, defaults, queue, interval_seconds):
        self.clock = clock
        self.engine = engine
        self.request_log = SqliteRequestLog(database)
        self.store = SqliteLearningStore(database)
        self.learning = Learning(store=self.store, interval_seconds=interval_seconds)
        self.sessions = Sessions(
            learning=self.learning, store=self.store, clock=self.clock, interval_seconds=interval_seconds
        )
        self.prefixes = prefixes
        machine = PsutilMachine()
        self.residency = Residency(machine=machine, clock=self.clock)
        self.models = Models(
            catalogue=Catalogue((engine,)),
            settings=ModelSettings(),
            defaults=defaults,
            swap_policy=SwapPolicy.ALLOW,
            machine=machine,
            residency=self.residency,
            learning=self.learning,
            keeper=prefixes,
            clock=self.clock,
        )
        self.inference = Inference(
            models=self.models,
            model_settings=ModelSettings(),
            queue_settings=queue,
            request_log=self.request_log,
            learning=self.learning,
            sessions=self.sessions,
            prefixes=prefixes,
            clock=self.clock,
        )

    async def ask(self, request):
        """Every event of a request."""
        async with aclosing(self.inference.generate(request)) as events:
            return [event async for event in events]

    async def close(self):
        self.inference.refuse_new_work()
        await self.inference.drain(0)
        await self.models.close()
        await self.engine.close()
        await self.sessions.close()
        await self.learning.close()
        await self.prefixes.close()


@asynccontextmanager
async def real_house(home=None, *, defaults=DEFAULTS, queue=None, interval_seconds=3600.0):
    """A house in a folder of its own, or in ``home``, where an earlier one may have lived."""
    async with AsyncExitStack() as stack:
        if home is None:
            home = Path(tempfile.mkdtemp(prefix="at-"))
            stack.callback(shutil.rmtree, home)
        paths = PathSettings(data=home / "data", runtime=home / "run", state=home / "state")
        for folder in (paths.data / "models", paths.runtime, paths.state):
            folder.mkdir(parents=True, exist_ok=True)
        database = await stack.enter_async_context(Database(paths.data / "autotune.db"))
        clock = MovableClock()
        prefixes = Prefixes(
            store=FilePrefixStore(database, paths.prefixes), settings=PrefixSettings(), clock=clock
        )
        await prefixes.open()
        house = RealHouse(
            database=database,
            engine=LlamacppEngine(
                paths=paths, settings=LlamacppSettings(slots=defaults.slots_count), files=(), clock=clock
            ),
            prefixes=prefixes,
            clock=clock,
            defaults=defaults,
            queue=queue or QueueSettings(),
            interval_seconds=interval_seconds,
        )
        stack.push_async_callback(house.close)
        await house.learning.open()
        await house.sessions.open()
        await house.residency.refresh()
        yield house


def chat(*texts, **changes):
    """A conversation of user and assistant in turns."""
    roles = (Role.USER, Role.ASSISTANT)
    messages = tuple(Message(roles[i % 2], (TextPart(text),)) for i, text in enumerate(texts))
    return GenerationRequest(
        **{"model": "pocket", "input": ChatInput(messages), "sampling": GREEDY} | changes
    )


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def only(events, kind):
    """The one event of this kind."""
    (event,) = [event for event in events if isinstance(event, kind)]
    return event


def started(events) -> Started:
    return only(events, Started)


def finished(events) -> Finished:
    return only(events, Finished)
