"""The engine: which models there are, and a worker for each that is loaded.

``daemon`` makes one; ``services`` use it through the port ``Engine``.
Invariants: a load that fails or is cancelled leaves neither process nor socket; after ``close``
nothing that this engine started is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from importlib.metadata import version as distribution_version
from pathlib import Path

import msgspec

from autotuned.core.errors import ModelInvalid, ModelLoadFailed, ShuttingDown
from autotuned.core.model import LoadProgress, ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Capabilities, Clock
from autotuned.core.settings import LlamacppSettings, PathSettings
from autotuned.engines.llamacpp.discovery import ModelFiles
from autotuned.engines.llamacpp.model import LlamacppModel
from autotuned.engines.llamacpp.prefix_file import PrefixFiles
from autotuned.engines.llamacpp.process import WorkerProcess, start_worker
from autotuned.engines.llamacpp.readiness import until_ready
from autotuned.engines.llamacpp.requests import WorkerRequests
from autotuned.engines.llamacpp.shape import worker_settings

NAME = "llamacpp"
WORKER = Path(__file__).with_name("worker.py")
# What the smallest system allows for the path of a Unix socket, its closing zero included.
SOCKET_PATH_BYTES = 104

CAPABILITIES = Capabilities(
    tools=True,
    json_schema=True,
    reasoning=True,
    logprobs=True,
    images=False,
    raw_prompt=True,
    embeddings=False,
    exact_token_counts=True,
    load_shape=True,
    kv_prefixes=True,
)

_log = logging.getLogger(__name__)


class LlamacppEngine:
    """llama.cpp from the xllamacpp wheel, in worker processes."""

    def __init__(
        self, *, paths: PathSettings, settings: LlamacppSettings, files: tuple[Path, ...], clock: Clock
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._clock = clock
        self._version = f"xllamacpp {distribution_version('xllamacpp')}"
        self._files = ModelFiles(engine=NAME, models_folder=paths.data / "models", files=files)
        self._scan: asyncio.Task[tuple[ModelEntry, ...]] | None = None
        self._workers: set[WorkerProcess] = set()
        self._is_closed = False

    @property
    def name(self) -> str:
        """The engine's name on the wire."""
        return NAME

    @property
    def version(self) -> str:
        """The wheel and its version, which identify the build."""
        return self._version

    def capabilities(self) -> Capabilities:
        """What llama.cpp's server does through this adapter."""
        return CAPABILITIES

    async def models(self) -> Sequence[ModelEntry]:
        """The files as they are now. Callers at the same time share one scan, which runs in a thread."""
        if self._scan is None or self._scan.done():
            self._scan = asyncio.ensure_future(asyncio.to_thread(self._files.scan))
        return await asyncio.shield(self._scan)

    async def load(
        self, entry: ModelEntry, shape: LoadShape, on_progress: Callable[[LoadProgress], None]
    ) -> LlamacppModel:
        """See ``Engine.load``."""
        self._check_open()
        if entry.facts is None:
            raise ModelInvalid(entry.problem, model=entry.id)
        incarnation_id = f"{NAME}-{uuid.uuid4().hex}"
        worker = await self._start(entry, shape, self._socket_path())
        try:
            self._check_open()
            applied = await until_ready(
                worker,
                shape,
                clock=self._clock,
                stall_seconds=self._settings.load_timeout_seconds,
                on_progress=on_progress,
            )
            worker.socket_path.chmod(0o600)
        except BaseException:
            worker.kill("its load was given up")
            await worker.wait_gone()
            self._check_open()
            raise
        requests = WorkerRequests(
            worker=worker,
            model_id=entry.id,
            incarnation_id=incarnation_id,
            context_tokens=applied.context_tokens,
            silence_seconds=self._settings.silence_timeout_seconds,
        )
        prefix_files = PrefixFiles(
            self._paths.prefixes,
            model_digest=entry.facts.digest,
            shape=applied,
            engine_version=self._version,
        )
        return LlamacppModel(
            incarnation_id=incarnation_id,
            shape=applied,
            footprint=worker.log.buffers.footprint(applied, worker.process_id),
            model_thinks=entry.facts.thinks,
            worker=worker,
            requests=requests,
            prefix_files=prefix_files,
        )

    async def close(self) -> None:
        """Ends every worker, those that still load included."""
        self._is_closed = True
        await asyncio.gather(*(worker.end("the engine was closed") for worker in self._workers))

    def _check_open(self) -> None:
        if self._is_closed:
            raise ShuttingDown

    async def _start(self, entry: ModelEntry, shape: LoadShape, socket_path: Path) -> WorkerProcess:
        with contextlib.suppress(OSError):
            self._paths.prefixes.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = worker_settings(
            entry,
            shape,
            socket_path=str(socket_path),
            prefix_folder=f"{self._paths.prefixes}{os.sep}",
            threads=self._settings.threads,
        )
        command = (sys.executable, "-I", "-B", str(WORKER), msgspec.json.encode(settings).decode())
        try:
            worker = await start_worker(command, socket_path)
        except OSError as error:
            raise ModelLoadFailed(
                f"A worker process cannot be started: {error.strerror}; try again."
            ) from error
        self._workers = {other for other in self._workers if not other.is_gone} | {worker}
        return worker

    def _socket_path(self) -> Path:
        """A path that no incarnation had. Raises ``ModelLoadFailed`` where the folder's is too long."""
        path = self._paths.runtime / f"w-{uuid.uuid4().hex[:8]}.sock"
        length = len(os.fsencode(path))
        if length >= SOCKET_PATH_BYTES:
            raise ModelLoadFailed(
                f'The socket path "{path}" has {length} bytes, where {SOCKET_PATH_BYTES - 1} are the most; '
                "set AUTOTUNE_RUNTIME_DIR to a folder with a shorter path.",
                path=str(path),
            )
        return path
