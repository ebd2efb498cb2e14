"""An engine whose every step waits for the test: for the state machines of the services alone.

It holds what the real engine promises: a load is cancelled or ends, an incarnation is gone once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from autotuned.core.model import LoadPhase, LoadProgress, ModelEntry
from autotuned.core.ports import Capabilities
from tests.examples import POCKET

FACTS = replace(POCKET, train_context_tokens=32_768)
ENTRY = ModelEntry(
    id="scripted", engine="scripted", path="/nowhere/scripted.gguf", size_bytes=2_000_000, facts=FACTS
)


class ScriptedModel:
    def __init__(self, number, shape):
        self.incarnation_id = f"incarnation-{number}"
        self.shape = shape
        self.process_id = 0
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

    async def unload(self):
        self.unloads_count += 1
        await asyncio.sleep(0)
        if self.alive:
            self.gone.set_result("unloaded")

    async def wait_gone(self):
        return await asyncio.shield(self.gone)

    async def count_tokens(self, prompt):
        return 1


@dataclass
class PendingLoad:
    shape: object
    outcome: asyncio.Future
    on_progress: object
    applied: object = None


@dataclass
class ScriptedEngine:
    name: str = "scripted"
    version: str = "1"
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
            load_shape=True,
        )

    async def models(self):
        return (ENTRY,)

    async def load(self, entry, shape, on_progress):
        load = PendingLoad(shape, asyncio.get_running_loop().create_future(), on_progress)
        self.pending.append(load)
        self.loads_count += 1
        self.most_loads_at_once = max(self.most_loads_at_once, len(self.pending))
        on_progress(LoadProgress(LoadPhase.STARTING, 0.0))
        try:
            await load.outcome
        finally:
            self.pending.remove(load)
        model = ScriptedModel(len(self.models_made), load.applied or shape)
        self.models_made.append(model)
        return model

    async def close(self):
        for model in self.models_made:
            await model.unload()
