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
from dataclasses import replace
from pathlib import Path

import msgspec

from autotuned.core.download import Downloaded, DownloadProgress
from autotuned.core.engine import Capabilities, EngineResident, EngineState, EngineStatus, Knobs, KnobScope
from autotuned.core.errors import ModelInvalid, ModelLoadFailed, ShuttingDown, Unsupported
from autotuned.core.model import EMBEDDED_ENGINE, LoadProgress, ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Clock
from autotuned.core.settings import LlamacppSettings, PathSettings
from autotuned.engines.llamacpp.binary import ServerBinary, clean_environment
from autotuned.engines.llamacpp.builds import FIRST_PATIENCE_SECONDS, PATIENCE_SECONDS, Builds
from autotuned.engines.llamacpp.discovery import POCKET, ModelFiles, split_parts
from autotuned.engines.llamacpp.log import WorkerLog
from autotuned.engines.llamacpp.model import LlamacppModel
from autotuned.engines.llamacpp.readiness import until_ready
from autotuned.engines.llamacpp.requests import WorkerRequests
from autotuned.engines.llamacpp.shape import worker_settings
from autotuned.engines.prefix_file import PrefixFiles
from autotuned.engines.process import WorkerProcess, fresh_socket_path, start_worker
from autotuned.engines.stores.belonging import Places
from autotuned.engines.stores.deletion import delete_model
from autotuned.engines.stores.folders import NO_STORES, StoreFolders

NAME = EMBEDDED_ENGINE
WORKER = Path(__file__).with_name("worker.py")
# The trace of a failing check would take a debugger, and minutes.
NO_BACKTRACE = {"GGML_NO_BACKTRACE": "1"}

CAPABILITIES = Capabilities(
    tools=True,
    json_schema=True,
    reasoning=True,
    logprobs=True,
    images=False,
    raw_prompt=True,
    embeddings=False,
    exact_token_counts=True,
    kv_prefixes=True,
    knobs=Knobs(
        context_tokens=KnobScope.LOAD,
        slots_count=KnobScope.LOAD,
        cache_type=KnobScope.LOAD,
        flash_attention=KnobScope.LOAD,
        batch_tokens=KnobScope.LOAD,
        gpu_layers_count=KnobScope.LOAD,
        host_prompt_cache=KnobScope.LOAD,
        memory_mapped=KnobScope.LOAD,
        keep_alive=KnobScope.REQUEST,
    ),
)

_log = logging.getLogger(__name__)


class LlamacppEngine:
    """llama.cpp in worker processes: a ``llama-server``, or the build in the xllamacpp wheel."""

    def __init__(
        self,
        *,
        paths: PathSettings,
        settings: LlamacppSettings,
        files: tuple[Path, ...],
        clock: Clock,
        stores: StoreFolders = NO_STORES,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._clock = clock
        self._builds = Builds(settings.server, engine=NAME, clock=clock)
        models_folder = paths.data / "models"
        # Names of the daemon's own store come before those of other programs' stores.
        listed = replace(stores, ollama=(paths.registry_store, *stores.ollama))
        self._files = ModelFiles(engine=NAME, models_folder=models_folder, files=files, stores=listed)
        self._places = Places(
            models_folder=models_folder,
            registry=paths.registry_store,
            packaged=(POCKET,),
            configured=files,
            stores=stores,
        )
        self._scan: asyncio.Task[tuple[ModelEntry, ...]] | None = None
        self._workers: set[WorkerProcess[WorkerLog]] = set()
        self._is_closed = False

    @property
    def name(self) -> str:
        """The engine's name on the wire."""
        return NAME

    @property
    def version(self) -> str:
        """The program and its version, which identify the build."""
        return self._builds.identity

    def capabilities(self) -> Capabilities:
        """What llama.cpp's server does through this adapter."""
        return replace(
            CAPABILITIES,
            slots_count=self._settings.slots,
            batch_tokens=self._settings.batch_tokens,
            has_gpu=self._builds.has_gpu,
        )

    def status(self) -> EngineStatus:
        """It comes with the daemon, unless the settings name a program that is not there."""
        builds = self._builds
        state = EngineState.READY if builds.is_known else EngineState.STARTING
        return EngineStatus(
            name=NAME,
            state=EngineState.NOT_INSTALLED if builds.problem else state,
            version=builds.identity,
            address=str(builds.binary.path) if builds.binary else "",
            detail=builds.problem,
            accelerator=builds.accelerator,
            findings=builds.findings(),
        )

    async def refresh(self) -> None:
        """Looks which build there is; the files are looked at with each list."""
        if not self._is_closed:
            await self._builds.look(patience_seconds=PATIENCE_SECONDS)

    async def residents(self) -> Sequence[EngineResident]:
        """None beside those of the daemon's own workers."""
        return ()

    async def models(self) -> Sequence[ModelEntry]:
        """The files as they are now. Callers at the same time share one scan, which runs in a thread.

        The first list waits for the first look at the build: without it a load would be planned for the CPU
        of a machine whose build has a GPU.
        """
        if self._scan is None or self._scan.done():
            self._scan = asyncio.ensure_future(asyncio.to_thread(self._files.scan))
        found = await asyncio.shield(self._scan)
        if not self._builds.was_looked_at and not self._is_closed:
            await self._builds.look(patience_seconds=FIRST_PATIENCE_SECONDS)
        return found

    async def unload_resident(self, model_id: str) -> bool:
        """Never: nobody else uses its workers."""
        _ = model_id
        return False

    async def load(
        self, entry: ModelEntry, shape: LoadShape, on_progress: Callable[[LoadProgress], None]
    ) -> LlamacppModel:
        """See ``Engine.load``."""
        self._check_open()
        if entry.facts is None:
            raise ModelInvalid(entry.problem, model=entry.id)
        incarnation_id = f"{NAME}-{uuid.uuid4().hex}"
        socket_path = fresh_socket_path(self._paths.runtime, "w")
        try:
            binary = await self._builds.for_load()
        finally:
            self._check_open()
        # The build of this worker, whichever there is when the load is done.
        engine_version = self.version
        worker = await self._start(entry, shape, socket_path, binary)
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
            engine_version=engine_version,
        )
        return LlamacppModel(
            incarnation_id=incarnation_id,
            shape=applied,
            footprint=worker.log.buffers.footprint(applied, worker.process_id),
            model_thinks=entry.facts.thinks,
            defaults=self._files.defaults_of(entry.id),
            worker=worker,
            requests=requests,
            prefix_files=prefix_files,
        )

    async def pull(self, name: str, on_progress: Callable[[DownloadProgress], None]) -> Downloaded:
        """Never: what it runs the daemon downloads."""
        _ = on_progress
        raise Unsupported(
            f'llama.cpp has no server that downloads models; leave the engine out: "autotunectl pull {name}".'
        )

    async def delete(self, entry: ModelEntry) -> int:
        """See ``Engine.delete``: all parts of a split file go together."""
        split = split_parts(entry.path)
        files = [Path(part) for part in split[1]] if split else [Path(entry.path)]
        freed = await asyncio.to_thread(delete_model, entry, files, self._places)
        if self._scan is not None and not self._scan.done():
            await asyncio.wait([self._scan])  # it may have seen what is gone
        return freed

    async def close(self) -> None:
        """Ends every worker, those that still load included."""
        self._is_closed = True
        await self._builds.close()
        await asyncio.gather(*(worker.end("the engine was closed") for worker in self._workers))

    def _check_open(self) -> None:
        if self._is_closed:
            raise ShuttingDown

    async def _start(
        self, entry: ModelEntry, shape: LoadShape, socket_path: Path, binary: ServerBinary | None
    ) -> WorkerProcess[WorkerLog]:
        with contextlib.suppress(OSError):
            self._paths.prefixes.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = worker_settings(
            entry,
            shape,
            socket_path=str(socket_path),
            prefix_folder=f"{self._paths.prefixes}{os.sep}",
            threads=self._settings.threads,
        )
        if binary is None:
            argument = msgspec.json.encode(settings).decode()
            command: tuple[str, ...] = (sys.executable, "-I", "-B", str(WORKER), argument)
        else:
            command = binary.command(settings)
        base = None if binary is None else clean_environment()
        try:
            worker = await start_worker(command, socket_path, WorkerLog(), NO_BACKTRACE, base=base)
        except OSError as error:
            raise ModelLoadFailed(
                f"A worker process cannot be started: {error.strerror}; try again."
            ) from error
        self._workers = {other for other in self._workers if not other.is_gone} | {worker}
        return worker
