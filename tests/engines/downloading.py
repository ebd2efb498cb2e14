"""What tests of downloads do again and again: pull, and look at what lies in the store."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from autotuned.core.download import Downloaded, DownloadPhase, DownloadProgress, Reference, Source
from autotuned.core.ports import Downloader


def reference(name: str) -> Reference:
    """A model of a registry."""
    return Reference(source=Source.OLLAMA_REGISTRY, name=name)


async def pull(downloader: Downloader, name: str, steps: list[DownloadProgress] | None = None) -> Downloaded:
    """Finds and fetches a model; how far it came goes into ``steps``."""
    download = await downloader.find(reference(name))
    try:
        return await download.fetch((steps if steps is not None else []).append)
    finally:
        await download.close()


def details(steps: list[DownloadProgress]) -> list[str]:
    """Why it waited, each reason once for each time."""
    return [step.detail for step in steps if step.phase is DownloadPhase.WAITING]


def content(size_bytes: int, seed: int = 1) -> bytes:
    """Bytes that nothing can compress or guess."""
    return random.Random(seed).randbytes(size_bytes)  # noqa: S311 - the same ones each time


def blob(store: Path, data: bytes) -> Path:
    """Where a file lies once it is complete."""
    return store / "blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}"


def part(store: Path, data: bytes) -> Path:
    """Where what has come of it lies."""
    path = blob(store, data)
    return path.with_name(path.name + ".part")


def is_bare(store: Path) -> bool:
    """Whether no model has a name, and no file is there but the lock."""
    return {path.name for path in store.rglob("*") if path.is_file()} <= {".lock"}
