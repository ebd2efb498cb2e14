"""What the daemon and a download's worker say to each other.

``downloader`` starts a worker with a ``Job`` as its argument, and reads one JSON line for each ``Line``. The
worker resolves, writes ``Resolved``, and waits for a line on its standard input before it fetches; when that
input ends the worker ends at once, whatever it is doing. Invariant: the last line is ``Done`` or ``Failed``,
or the worker was ended.
"""

from __future__ import annotations

import msgspec

REASONS = (
    "MODEL_NOT_FOUND",
    "FIELD_INVALID",
    "UNSUPPORTED",
    "SOURCE_UNREACHABLE",
    "SOURCE_DENIED",
    "DOWNLOAD_CORRUPT",
    "STORAGE_FULL",
)
"""What a download may fail with; anything else is a fault of the worker."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to fetch. ``source`` and ``name`` are those of ``core.download.Reference``.

    ``url`` is the registry or hub; ``folder`` the store in Ollama's layout, or the cache of the hub;
    ``runs_mlx`` says whether an engine here runs MLX repositories.
    """

    source: str
    name: str
    quantization: str
    url: str
    folder: str
    disk_margin_bytes: int
    silence_timeout_seconds: float
    patience_seconds: float
    insecure_hosts: tuple[str, ...] = ()
    runs_mlx: bool = False


class Resolved(msgspec.Struct, frozen=True, kw_only=True, tag="resolved"):
    """What would be fetched; the fields are those of ``core.download.Offer``."""

    model_id: str
    engine: str
    quantization: str
    size_bytes: int
    weights_bytes: int
    missing_bytes: int
    files_count: int
    folder: str
    free_bytes: int


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """How far it has come; the fields are those of ``core.download.DownloadProgress``."""

    phase: str
    done_bytes: int = 0
    total_bytes: int = 0
    detail: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """All is here and verified."""

    fetched_bytes: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """It ended without a result. ``reason``: one of ``REASONS``; ``message``: a sentence with what to do."""

    reason: str
    message: str


Line = Resolved | Step | Done | Failed


class DownloadFailure(Exception):
    """Raised in the worker; becomes ``Failed``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failed = Failed(reason=reason, message=message)
