"""Engines that load and answer at once, and the services around several of them."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from autotuned.core.chat import ChatInput, GenerationRequest, Message, Role, TextPart
from autotuned.core.download import Downloaded, DownloadPhase, DownloadProgress
from autotuned.core.engine import ALL_SAMPLING, Capabilities, EngineState, EngineStatus, Knobs, KnobScope
from autotuned.core.generation import EngineFinished, FinishReason, PrefillProgress, TextDelta, Usage
from autotuned.core.memory import MemoryReading, ProcessMemory, SwapPolicy
from autotuned.core.model import ModelEntry
from autotuned.core.settings import ModelSettings, PrefixSettings, QueueSettings
from autotuned.policy.remote import NOTHING
from autotuned.services.catalogue import Catalogue
from autotuned.services.engines import Engines
from autotuned.services.inference import Inference
from autotuned.services.learning import Learning
from autotuned.services.models import Models
from autotuned.services.prefixes import Prefixes
from autotuned.services.residency import Residency
from autotuned.services.sessions import Sessions
from autotuned.storage.registry import TomlRegistryFile
from tests.examples import DEFAULTS, PLENTY, POCKET
from tests.services.scripted import HandClock, NoStore, ScriptedKeeper

ABLE = Capabilities(
    **{each.name: True for each in fields(Capabilities) if each.type == "bool"} | {"kv_prefixes": False},
    sampling=ALL_SAMPLING,
    knobs=Knobs(**{each.name: KnobScope.LOAD for each in fields(Knobs)}),
)
LATE = replace(ABLE, counts_before_prefill=False, exact_token_counts=False, continues_replies=False)

_numbers = itertools.count()


def entry(model_id, engine, digest="a"):
    facts = replace(POCKET, digest=digest)
    return ModelEntry(id=model_id, engine=engine, path=f"/{model_id}", size_bytes=1, facts=facts)


def ask(model="", **changes):
    chat = ChatInput((Message(Role.USER, (TextPart("Hello! " * 60),)),))
    return GenerationRequest(**{"model": model, "input": chat} | changes)


class InstantModel:
    def __init__(self, engine, shape):
        self.engine, self.shape = engine, shape
        self.incarnation_id = f"instant-{next(_numbers)}"
        self.footprint = NOTHING
        self.process_id = 0
        self.gone = asyncio.get_running_loop().create_future()

    @property
    def is_gone(self):
        return self.gone.done()

    @property
    def alive(self):
        return not self.is_gone

    def holds(self, conversation):
        return False

    async def generate(self, request, conversation):
        self.engine.requests.append(request)
        if self.engine.able.counts_before_prefill:
            yield PrefillProgress(5, 0, 0)
        yield TextDelta(0, "Hi.")
        await self.engine.may_end.wait()
        yield EngineFinished(self.engine.ends_with, Usage(5, 0, 2), 0.1, 0.1)

    async def count_tokens(self, prompt):
        return 5

    async def unload(self):
        if not self.is_gone:
            self.gone.set_result("it was unloaded")

    async def release(self):
        await self.unload()

    async def wait_gone(self):
        return await asyncio.shield(self.gone)


@dataclass
class InstantEngine:
    name: str
    entries: tuple = ()
    able: Capabilities = ABLE
    state: EngineState = EngineState.READY
    detail: str = ""
    held: tuple = ()
    ends_with: FinishReason = FinishReason.STOP
    version: str = "1"
    loaded: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    released: list = field(default_factory=list)

    def __post_init__(self):
        self.may_end = asyncio.Event()
        self.may_end.set()

    def capabilities(self):
        return self.able

    def status(self):
        return EngineStatus(
            name=self.name, state=self.state, version="1", address=f"http://{self.name}", detail=self.detail
        )

    async def refresh(self):
        pass

    async def models(self):
        return self.entries if self.state is EngineState.READY else ()

    async def residents(self):
        return self.held

    async def unload_resident(self, model_id):
        found = any(each.model_id == model_id for each in self.held)
        if found:
            self.released.append(model_id)
        return found

    async def load(self, entry, shape, on_progress):
        model = InstantModel(self, shape)
        self.loaded.append(model)
        return model

    async def pull(self, name, on_progress):
        on_progress(DownloadProgress(phase=DownloadPhase.DOWNLOADING, done_bytes=1, total_bytes=1))
        is_new = all(each.id != name for each in self.entries)
        if is_new:
            self.entries = (*self.entries, entry(name, self.name, digest=f"digest of {name}"))
        return Downloaded(model_id=name, engine=self.name, size_bytes=1, fetched_bytes=int(is_new))

    async def delete(self, entry):
        before = self.entries
        self.entries = tuple(each for each in before if each != entry)
        return entry.size_bytes if entry in before else 0

    async def close(self):
        for model in self.loaded:
            await model.unload()


class NoProcesses:
    async def read_memory(self):
        return MemoryReading(
            total_bytes=PLENTY.total_bytes,
            available_bytes=PLENTY.available_bytes,
            swap_total_bytes=0,
            swap_free_bytes=0,
        )

    def process_memory(self, process_id):
        return ProcessMemory(resident_bytes=0, anonymous_bytes=0)


class RoomyDisk:
    async def free_bytes(self):
        return 1 << 40


class Records:
    def __init__(self):
        self.all = []

    async def append(self, record):
        self.all.append(record)


NOWHERE = Path("/nowhere/models.toml")


class Quarters:
    """The services around these engines."""

    def __init__(self, *engines, prefer="auto", default="pocket", own_registry=NOWHERE):
        clock = HandClock()
        self.engines = engines
        self.records = Records()
        self.learning = Learning(store=NoStore())
        self.residency = Residency(machine=NoProcesses(), clock=clock)
        self.catalogue = Catalogue(engines)
        self.sessions = Sessions(learning=self.learning, store=NoStore(), clock=clock)
        prefixes = Prefixes(store=None, settings=PrefixSettings(disk_mib=0), clock=clock)
        self.models = Models(
            catalogue=self.catalogue,
            settings=ModelSettings(default=default),
            defaults=DEFAULTS,
            swap_policy=SwapPolicy.ALLOW,
            machine=NoProcesses(),
            residency=self.residency,
            learning=self.learning,
            keeper=ScriptedKeeper(),
            clock=clock,
            prefer=prefer,
        )
        self.inference = Inference(
            models=self.models,
            model_settings=ModelSettings(),
            queue_settings=QueueSettings(max_waiting=4, wait_seconds=60.0),
            request_log=self.records,
            learning=self.learning,
            sessions=self.sessions,
            prefixes=prefixes,
            clock=clock,
        )
        self.reports = Engines(
            catalogue=self.catalogue,
            models=self.models,
            residency=self.residency,
            store=RoomyDisk(),
            registry=TomlRegistryFile(own_registry),
        )

    async def answer(self, request):
        async with aclosing(self.inference.generate(request)) as events:
            return [event async for event in events]

    async def __aenter__(self):
        await self.residency.refresh()
        return self

    async def __aexit__(self, *_):
        for engine in self.engines:
            engine.may_end.set()
        self.inference.refuse_new_work()
        await self.inference.drain(5)
        await self.models.close()
        await self.sessions.close()
        await self.learning.close()
