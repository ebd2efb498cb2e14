"""The real daemon with one model whose worker streams as fast as a socket takes it.

    python -m tests.bench.fast_daemon TOKENS

Only the worker is not real: adapter, services, rpc and all below are those of every daemon.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from autotuned.config import load
from autotuned.core.engine import EngineState, EngineStatus
from autotuned.core.errors import Unsupported
from autotuned.core.model import LayerGroup, ModelEntry, ModelFacts
from autotuned.core.prefix import WrittenPrefix
from autotuned.daemon import Parts, run
from autotuned.engines.llamacpp.engine import CAPABILITIES
from tests.bench.worker_client import FOOTPRINT, attach

FACTS = ModelFacts(
    digest="fast",
    architecture="llama",
    name="fast",
    quantization="Q8_0",
    parameters_count=1,
    weights_bytes=1,
    weights_bytes_by_type=(("Q8_0", 1),),
    layers_count=1,
    embedding_length=64,
    vocabulary_size=64,
    layer_groups=(LayerGroup(layers_count=1, kv_heads=1, key_length=64, value_length=64),),
    train_context_tokens=8192,
    chat_template="",
)


class FastModel:
    """An incarnation that lasts as long as the daemon."""

    def __init__(self, socket_path: Path, shape) -> None:
        self._adapter = attach(socket_path)
        self.incarnation_id = "fast"
        self.shape = shape
        self.footprint = FOOTPRINT
        self.process_id = 0
        self.is_gone = False
        self._gone = asyncio.get_running_loop().create_future()
        self.generate = self._adapter.generate
        self.count_tokens = self._adapter.count_tokens

    def holds(self, _conversation: str) -> bool:
        return False

    async def save_prefix(self, _conversation: str, _file_name: str) -> WrittenPrefix:
        return WrittenPrefix(0, 0)

    async def unload(self) -> None:
        self.is_gone = True
        if not self._gone.done():
            self._gone.set_result("unloaded")

    async def release(self) -> None:
        await self.unload()

    async def wait_gone(self) -> str:
        return await asyncio.shield(self._gone)


class FastEngine:
    name = "llamacpp"
    version = "fast"

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path

    def capabilities(self):
        return CAPABILITIES

    def status(self):
        return EngineStatus(name=self.name, state=EngineState.READY, version=self.version)

    async def refresh(self) -> None:
        """There is nothing to look at."""

    async def residents(self):
        return ()

    async def unload_resident(self, _model_id):
        return False

    async def models(self):
        return (ModelEntry(id="pocket", engine=self.name, path="", size_bytes=1, facts=FACTS),)

    async def load(self, _entry, shape, _on_progress):
        return FastModel(self._socket_path, shape)

    async def pull(self, name, _on_progress):
        raise Unsupported(f'There is nowhere to download "{name}" from.')

    async def delete(self, entry):
        raise Unsupported(f'"{entry.id}" has no file.')

    async def close(self) -> None:
        """The worker ends with ``main``."""


def main(tokens: str) -> None:
    os.umask(0o077)
    settings = load(flags={}, environment=os.environ, file=None)
    socket_path = settings.paths.runtime.with_name("fast.sock")
    worker = subprocess.Popen([sys.executable, "-m", "tests.bench.fast_worker", str(socket_path), tokens])
    try:
        while not socket_path.exists():
            time.sleep(0.01)
        asyncio.run(run(settings, parts=Parts(engines=lambda _settings, _clock: (FastEngine(socket_path),))))
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main(sys.argv[1])
