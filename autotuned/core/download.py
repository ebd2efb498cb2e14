"""Downloads as values: what to fetch, how far it has come, what came of it.

``policy.references`` makes ``Reference`` from what a person types; the downloader of ``engines`` and the
engine of a server that pulls for itself tell ``Offer`` and ``Progress``; ``services.pulls`` joins them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Source(Enum):
    """Where a model comes from."""

    OLLAMA_REGISTRY = "ollama registry"
    """A registry that speaks Ollama's protocol; ollama.com's where the name has no host."""
    HUGGING_FACE = "hugging face"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What to download.

    ``name`` is "host/namespace/model:tag" of a registry, the parts that are the usual ones left out as in
    "qwen3:8b"; or "publisher/repository" of Hugging Face, where ``quantization`` chooses among files, and ""
    takes the usual one.
    """

    source: Source
    name: str
    quantization: str = ""

    @property
    def text(self) -> str:
        """As a person types it."""
        if self.source is Source.OLLAMA_REGISTRY:
            return self.name
        return f"hf:{self.name}" + (f":{self.quantization}" if self.quantization else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What would be downloaded, before its first byte.

    ``model_id`` is what the model will be called; ``engine`` runs it. ``missing_bytes`` of
    ``size_bytes`` are not here yet; ``weights_bytes`` of it are weights. ``free_bytes`` is the room where it
    goes, in ``folder``; None where the server of the engine has it elsewhere.
    """

    model_id: str
    engine: str
    quantization: str
    size_bytes: int
    weights_bytes: int
    missing_bytes: int
    files_count: int
    folder: str = ""
    free_bytes: int | None = None


class DownloadPhase(Enum):
    """What part of a download is under way."""

    RESOLVING = "resolving"
    DOWNLOADING = "downloading"
    WAITING = "waiting"
    """The connection broke; it is tried again in a moment."""
    VERIFYING = "verifying"
    FINISHING = "finishing"


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgress:
    """How far a download has come: ``done_bytes`` of ``total_bytes`` are here, verified or not.

    ``detail`` is a clause for WAITING: why. Rate and time left are for who shows them: they follow from two
    of these.
    """

    phase: DownloadPhase
    done_bytes: int = 0
    total_bytes: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """What is here now. ``fetched_bytes`` came over the network in this pull; 0 where all was here before."""

    model_id: str
    engine: str
    size_bytes: int
    fetched_bytes: int
