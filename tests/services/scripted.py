"""An engine whose every step waits for the test, and the memory that its models take.

For the state machines of the services alone. The engine holds what the real one promises: a load is
cancelled or ends, an incarnation is gone once. The machine's memory is the sum of what is loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autotuned.core.download import Downloaded, DownloadPhase, DownloadProgress
from autotuned.core.engine import Capabilities, EngineState, EngineStatus
from autotuned.core.errors import Unsupported
from autotuned.core.learning import Learned
from autotuned.core.memory import MemoryReading, ProcessMemory
from autotuned.core.model import EMBEDDED_ENGINE, LoadPhase, LoadProgress, ModelEntry
from autotuned.policy.footprint import estimate_footprint
from autotuned.services.learning import Learning
from autotuned.services.model_actor import ModelActor
from autotuned.services.planner import LocalPlanner
from autotuned.services.residency import Residency
from tests.examples import DEFAULTS, POCKET

FACTS = replace(POCKET, train_context_tokens=32_768)
ENTRY = ModelEntry(
    id="scripted", engine=EMBEDDED_ENGINE, path="/nowhere/scripted.gguf", size_bytes=2_000_000, facts=FACTS
)


def entry(model_id, facts=FACTS):
    """A model; models with different ids have different contents."""
    facts = replace(facts, digest=f"digest of {model_id}")
    return replace(ENTRY, id=model_id, path=f"/nowhere/{model_id}.gguf", facts=facts)


class ScriptedModel:
    def __init__(self, number, shape, facts=FACTS):
        self.incarnation_id = f"incarnation-{number}"
        self.shape = shape
        self.footprint = estimate_footprint(facts, shape, Learned())
        self.process_id = 1_000_000 + number
        self.gone = asyncio.get_running_loop().create_future()
        self.unloads_count = 0

    @property
    def alive(self):
        return not self.gone.done()

    @property
    def is_gone(self):
        return not self.alive

    def crash(self):
        if self.alive:
            self.gone.set_result("killed by signal 9")

    def holds(self, conversation):
        return False

    async def unload(self):
        self.unloads_count += 1
        await asyncio.sleep(0)
        if self.alive:
            self.gone.set_result("unloaded")

    async def release(self):
        await self.unload()

    async def wait_gone(self):
        return await asyncio.shield(self.gone)

    async def count_tokens(self, prompt):
        return 1


@dataclass
class PendingLoad:
    entry: ModelEntry
    shape: object
    outcome: asyncio.Future
    on_progress: object
    applied: object = None


@dataclass
class PendingPull:
    """A pull that goes as the test says: ``tell`` its progress, then ``finish`` it or ``fail`` it."""

    engine: str
    name: str
    on_progress: object
    outcome: asyncio.Future

    def tell(self, done_bytes, total_bytes, phase=DownloadPhase.DOWNLOADING, detail=""):
        self.on_progress(
            DownloadProgress(phase=phase, done_bytes=done_bytes, total_bytes=total_bytes, detail=detail)
        )

    def finish(self, size_bytes=2_000_000, fetched_bytes=2_000_000):
        self.outcome.set_result(
            Downloaded(
                model_id=self.name, engine=self.engine, size_bytes=size_bytes, fetched_bytes=fetched_bytes
            )
        )

    def fail(self, error):
        self.outcome.set_exception(error)


@dataclass
class ScriptedEngine:
    """``pulls``: its server downloads; ``pulling`` are the pulls under way, ``deleted`` what was deleted."""

    name: str = EMBEDDED_ENGINE
    version: str = "1"
    entries: tuple[ModelEntry, ...] = (ENTRY,)
    pulls: bool = False
    pulling: list[PendingPull] = field(default_factory=list)
    cancelled_pulls: list[str] = field(default_factory=list)
    deleted: list[ModelEntry] = field(default_factory=list)
    pending: list[PendingLoad] = field(default_factory=list)
    models_made: list[ScriptedModel] = field(default_factory=list)
    most_loads_at_once: int = 0
    loads_count: int = 0

    def capabilities(self):
        return Capabilities(
            tools=True,
            json_schema=True,
            reasoning=True,
            logprobs=True,
            images=False,
            raw_prompt=True,
            embeddings=False,
            exact_token_counts=True,
            kv_prefixes=True,
            pulls=self.pulls,
        )

    def status(self):
        return EngineStatus(name=self.name, state=EngineState.READY, version=self.version)

    async def refresh(self):
        pass

    async def residents(self):
        return ()

    async def unload_resident(self, model_id):
        return False

    async def models(self):
        return self.entries

    async def load(self, entry, shape, on_progress):
        load = PendingLoad(entry, shape, asyncio.get_running_loop().create_future(), on_progress)
        self.pending.append(load)
        self.loads_count += 1
        of_one_model = sum(other.entry.id == entry.id for other in self.pending)
        self.most_loads_at_once = max(self.most_loads_at_once, of_one_model)
        on_progress(LoadProgress(LoadPhase.STARTING, 0.0))
        try:
            await load.outcome
        finally:
            self.pending.remove(load)
        model = ScriptedModel(len(self.models_made), load.applied or shape, entry.facts)
        self.models_made.append(model)
        return model

    async def pull(self, name, on_progress):
        """What was pulled is in its list before the pull is told to have ended."""
        if not self.pulls:
            raise Unsupported(f'"{self.name}" cannot download "{name}".')
        pull = PendingPull(self.name, name, on_progress, asyncio.get_running_loop().create_future())
        self.pulling.append(pull)
        try:
            downloaded = await pull.outcome
        except asyncio.CancelledError:
            self.cancelled_pulls.append(name)
            raise
        finally:
            self.pulling.remove(pull)
        others = tuple(each for each in self.entries if each.id != downloaded.model_id)
        self.entries = (*others, replace(entry(downloaded.model_id), engine=self.name))
        return downloaded

    async def delete(self, entry):
        await asyncio.sleep(0)
        if entry not in self.entries:
            return 0
        self.entries = tuple(each for each in self.entries if each != entry)
        self.deleted.append(entry)
        return entry.size_bytes

    async def close(self):
        for model in self.models_made:
            await model.unload()


@dataclass
class ScriptedMachine:
    """``others_bytes`` is what other programs take; a load takes its memory when it ends."""

    engine: ScriptedEngine
    total_bytes: int = 24 << 30
    others_bytes: int = 0
    swap_free_bytes: int = 0

    @property
    def taken_bytes(self):
        return sum(_taken(model) for model in self.engine.models_made if model.alive)

    async def read_memory(self):
        await asyncio.sleep(0)
        return MemoryReading(
            total_bytes=self.total_bytes,
            available_bytes=max(0, self.total_bytes - self.others_bytes - self.taken_bytes),
            swap_total_bytes=self.swap_free_bytes,
            swap_free_bytes=self.swap_free_bytes,
        )

    def process_memory(self, process_id):
        for model in self.engine.models_made:
            if model.process_id == process_id and model.alive:
                mapped = model.footprint.weights_bytes if model.shape.memory_mapped else 0
                resident = _taken(model)
                return ProcessMemory(resident_bytes=resident, anonymous_bytes=resident - mapped)
        return ProcessMemory(resident_bytes=0, anonymous_bytes=0)


def _taken(model):
    """The host prompt cache is empty at first."""
    return model.footprint.total_bytes - model.footprint.host_prompt_cache_bytes


@dataclass
class ScriptedKeeper:
    """Remembers which incarnations were saved while they lived, and which it was told to forget."""

    saved: list[ScriptedModel] = field(default_factory=list)
    forgotten: list[ScriptedModel] = field(default_factory=list)

    async def save(self, loaded, within_seconds=None):
        assert loaded.alive
        await asyncio.sleep(0)
        self.saved.append(loaded)

    def forget(self, loaded):
        assert not loaded.alive
        self.forgotten.append(loaded)


class NoStore:
    """Remembers nothing."""

    async def learned(self) -> Mapping[str, Learned]:
        return {}

    async def remember(self, digest, learned):
        return

    async def sessions(self, newer_than):
        return ()

    async def remember_session(self, size):
        return


class HandClock:
    """Moves by hand, and by ``step_seconds`` at each look at it."""

    def __init__(self, step_seconds=0.0):
        self.seconds = 1_000.0
        self.step_seconds = step_seconds

    def now(self):
        return self.seconds

    def monotonic(self):
        self.seconds += self.step_seconds
        return self.seconds


class HandLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers go by ``moved_seconds`` and never by themselves."""

    def __init__(self):
        super().__init__()
        self.moved_seconds = 0.0

    def time(self):
        return self.moved_seconds


class World:
    """Actors that share an engine and the memory of a machine. Made on a running loop."""

    def __init__(
        self, *, defaults=DEFAULTS, clock=None, entries=(ENTRY,), keep_alive_seconds=-1.0, **machine
    ):
        self.clock = clock or HandClock()
        self.engine = ScriptedEngine(entries=entries)
        self.machine = ScriptedMachine(self.engine, **machine)
        self.keeper = ScriptedKeeper()
        self.learning = Learning(store=NoStore())
        self.residency = Residency(machine=self.machine, clock=self.clock)
        self.actors = {}
        for each in entries:
            planner = LocalPlanner(
                model_id=each.id,
                learned_as=each.learned_as,
                facts=each.facts,
                defaults=defaults,
                learning=self.learning,
                residency=self.residency,
            )
            self.actors[each.id] = ModelActor(
                entry=each,
                engine=self.engine,
                planner=planner,
                residency=self.residency,
                keeper=self.keeper,
                clock=self.clock,
                keep_alive_seconds=keep_alive_seconds,
            )

    @property
    def actor(self):
        return next(iter(self.actors.values()))

    async def close(self):
        for actor in self.actors.values():
            await actor.close()
        await self.learning.close()
