"""The engine's adapter in this process, on the socket of a worker that somebody else owns."""

from __future__ import annotations

from pathlib import Path

from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.engines.llamacpp.model import LlamacppModel

SHAPE = LoadShape(
    context_tokens=1536,
    slots_count=1,
    key_cache_type=KvCacheType.F16,
    value_cache_type=KvCacheType.F16,
    batch_tokens=512,
    micro_batch_tokens=512,
    flash_attention=True,
    gpu_layers_count=0,
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
    return LlamacppModel(
        incarnation_id="borrowed",
        model_id="pocket",
        shape=SHAPE,
        worker=BorrowedWorker(socket_path),
        silence_seconds=30.0,
    )
