"""The engine's adapter in this process, on the socket of a worker that somebody else owns."""

from __future__ import annotations

from pathlib import Path

from autotuned.core.memory import Footprint
from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.engines.llamacpp.model import LlamacppModel
from autotuned.engines.llamacpp.requests import WorkerRequests
from autotuned.engines.prefix_file import PrefixFiles

SHAPE = LoadShape(
    context_tokens=1536,
    slots_count=1,
    kv_unified=False,
    key_cache_type=KvCacheType.F16,
    value_cache_type=KvCacheType.F16,
    batch_tokens=512,
    micro_batch_tokens=512,
    flash_attention=True,
    gpu_layers_count=0,
    host_prompt_cache_bytes=0,
    memory_mapped=True,
)
FOOTPRINT = Footprint(
    weights_bytes=1, repacked_weights_bytes=0, kv_cache_bytes=1, compute_bytes=0, process_bytes=0
)


class BorrowedWorker:
    """Stands where the adapter expects the process that it started."""

    process_id = 0
    is_gone = False

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path

    async def gone_within(self, _seconds: float) -> str:
        return ""

    def kill(self, _cause: str) -> None:
        """It is not ours."""


def attach(socket_path: Path) -> LlamacppModel:
    worker = BorrowedWorker(socket_path)
    return LlamacppModel(
        incarnation_id="borrowed",
        shape=SHAPE,
        footprint=FOOTPRINT,
        model_thinks=False,
        worker=worker,
        requests=WorkerRequests(
            worker=worker,
            model_id="pocket",
            incarnation_id="borrowed",
            context_tokens=SHAPE.context_tokens,
            silence_seconds=30.0,
        ),
        prefix_files=PrefixFiles(socket_path.parent, model_digest="", shape=SHAPE, engine_version=""),
    )
