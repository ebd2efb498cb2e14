"""A model whose worker is a scripted server: its process is of no interest."""

from __future__ import annotations

from pathlib import Path

from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape
from autotuned.engines.llamacpp.model import LlamacppModel
from autotuned.engines.llamacpp.requests import WorkerRequests
from autotuned.engines.prefix_file import PrefixFiles

NOTHING = Footprint(
    weights_bytes=0, repacked_weights_bytes=0, kv_cache_bytes=0, compute_bytes=0, process_bytes=0
)


class ScriptedWorker:
    """A worker that is there until it is killed."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.process_id = 0
        self.killed_because: str | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it was killed."""
        return self.killed_because is not None

    def kill(self, cause: str) -> None:
        """Remembers why."""
        self.killed_because = cause

    async def gone_within(self, seconds: float) -> str | None:
        """Tells at once."""
        _ = seconds
        return self.killed_because


def scripted_model(worker: ScriptedWorker, prefix_folder: Path, shape: LoadShape) -> LlamacppModel:
    """A loaded model on that worker."""
    requests = WorkerRequests(
        worker=worker,
        model_id="pocket",
        incarnation_id="one",
        context_tokens=shape.context_tokens,
        silence_seconds=0.2,
    )
    return LlamacppModel(
        incarnation_id="one",
        shape=shape,
        footprint=NOTHING,
        model_thinks=False,
        worker=worker,
        requests=requests,
        prefix_files=PrefixFiles(prefix_folder, model_digest="a", shape=shape, engine_version="1"),
    )
