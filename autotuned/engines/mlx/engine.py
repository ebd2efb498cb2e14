"""The engine: which models there are, and a worker for each that is loaded.

``daemon`` makes one; ``services`` use it through the port ``Engine``. MLX itself is looked for, and never
imported here.
Invariants: a load that fails or is cancelled leaves neither process nor socket; after ``close``
nothing that this engine started is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path

import msgspec

from autotuned.core.download import Downloaded, DownloadProgress
from autotuned.core.engine import (
    Capabilities,
    EngineResident,
    EngineState,
    EngineStatus,
    Finding,
    Knobs,
    KnobScope,
    Severity,
)
from autotuned.core.errors import EngineUnreachable, ModelInvalid, ModelLoadFailed, ShuttingDown, Unsupported
from autotuned.core.model import LoadProgress, ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Clock
from autotuned.core.settings import MlxSettings, PathSettings
from autotuned.engines.mlx.discovery import ModelFolders
from autotuned.engines.mlx.loading import until_serving
from autotuned.engines.mlx.log import WorkerLog
from autotuned.engines.mlx.model import MlxModel
from autotuned.engines.mlx.requests import MlxRequests
from autotuned.engines.mlx.shape import applied_shape, footprint, worker_settings
from autotuned.engines.prefix_file import PrefixFiles
from autotuned.engines.process import WorkerProcess, fresh_socket_path, start_worker
from autotuned.engines.stores.belonging import Places
from autotuned.engines.stores.deletion import delete_model
from autotuned.engines.stores.folders import NO_STORES, StoreFolders

NAME = "mlx"
WORKER = Path(__file__).with_name("worker.py")
PACKAGE = "mlx-lm"
INSTALL = 'pip install "autotuned[mlx]"'
# Nothing is fetched, and no library of the worker has anything to say to its output.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
# Packages that bring MLX's back ends for Linux, and what they compute with.
_CUDA_PACKAGES = ("mlx-cuda", "mlx-cuda-12", "mlx-cuda-13")


class MlxEngine:
    """MLX, in worker processes that run mlx_lm. ``folders`` are models outside the models folder."""

    def __init__(
        self,
        *,
        paths: PathSettings,
        settings: MlxSettings,
        clock: Clock,
        folders: tuple[Path, ...] = (),
        stores: StoreFolders = NO_STORES,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._clock = clock
        self._version = _installed(PACKAGE)
        models_folder = paths.data / "models"
        self._folders = ModelFolders(engine=NAME, models_folder=models_folder, folders=folders, stores=stores)
        self._places = Places(
            models_folder=models_folder, registry=paths.registry_store, configured=folders, stores=stores
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
        """What runs the models, which identifies the build; "" where it is not installed."""
        return f"mlx-lm {self._version}, mlx {_installed('mlx')}" if self._version else ""

    def capabilities(self) -> Capabilities:
        """What mlx_lm does through this adapter."""
        return Capabilities(
            tools=True,
            json_schema=_installed("llguidance") != "",
            reasoning=True,
            logprobs=True,
            images=False,
            raw_prompt=True,
            embeddings=False,
            exact_token_counts=True,
            kv_prefixes=True,
            tool_choice=_installed("llguidance") != "",
            batch_tokens=self._settings.batch_tokens,
            has_gpu=_accelerator() != "CPU",
            knobs=Knobs(
                context_tokens=KnobScope.LOAD,
                cache_type=KnobScope.LOAD,
                batch_tokens=KnobScope.LOAD,
                host_prompt_cache=KnobScope.LOAD,
                keep_alive=KnobScope.REQUEST,
            ),
        )

    def status(self) -> EngineStatus:
        """Ready where it is installed: workers start with the loads."""
        if self._settings.mode == "off":
            return EngineStatus(name=NAME, state=EngineState.OFF, detail="mlx.mode is off")
        if not self._version:
            return EngineStatus(
                name=NAME,
                state=EngineState.NOT_INSTALLED,
                detail=f"{PACKAGE} is not installed",
                findings=(
                    Finding(
                        code="mlx-not-installed",
                        severity=Severity.INFO,
                        subject=NAME,
                        text=f"MLX models cannot run: {PACKAGE} is not installed.",
                        advice=INSTALL,
                    ),
                ),
            )
        return EngineStatus(
            name=NAME,
            state=EngineState.READY,
            version=self.version,
            address=str(WORKER),
            accelerator=_accelerator(),
        )

    async def refresh(self) -> None:
        """Looks whether it is installed by now; the folders are looked at with each list."""
        self._version = _installed(PACKAGE)

    async def residents(self) -> Sequence[EngineResident]:
        """None beside those of the daemon's own workers."""
        return ()

    async def models(self) -> Sequence[ModelEntry]:
        """The folders as they are now. Callers at the same time share one scan, which runs in a thread."""
        if self._settings.mode == "off" or not self._version:
            return ()
        if self._scan is None or self._scan.done():
            self._scan = asyncio.ensure_future(asyncio.to_thread(self._folders.scan))
        return await asyncio.shield(self._scan)

    async def unload_resident(self, model_id: str) -> bool:
        """Never: nobody else uses its workers."""
        _ = model_id
        return False

    async def load(
        self, entry: ModelEntry, shape: LoadShape, on_progress: Callable[[LoadProgress], None]
    ) -> MlxModel:
        """See ``Engine.load``."""
        self._check_open()
        if entry.facts is None:
            raise ModelInvalid(entry.problem, model=entry.id)
        if not self._version:
            raise EngineUnreachable(f"MLX is not installed; install it with: {INSTALL}", model=entry.id)
        applied = applied_shape(shape)
        incarnation_id = f"{NAME}-{uuid.uuid4().hex}"
        worker = await self._start(entry, applied, fresh_socket_path(self._paths.runtime, "m"))
        try:
            self._check_open()
            report = await until_serving(
                worker,
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
        requests = MlxRequests(
            worker=worker,
            model_id=entry.id,
            incarnation_id=incarnation_id,
            silence_seconds=self._settings.silence_timeout_seconds,
        )
        prefix_files = PrefixFiles(
            self._paths.prefixes,
            model_digest=entry.facts.digest,
            shape=applied,
            engine_version=self.version,
        )
        return MlxModel(
            incarnation_id=incarnation_id,
            shape=applied,
            footprint=footprint(report, applied),
            model_thinks=entry.facts.thinks,
            worker=worker,
            requests=requests,
            prefix_files=prefix_files,
        )

    async def pull(self, name: str, on_progress: Callable[[DownloadProgress], None]) -> Downloaded:
        """Never: what it runs the daemon downloads."""
        _ = on_progress
        raise Unsupported(
            f'MLX has no server that downloads models; leave the engine out: "autotunectl pull {name}".'
        )

    async def delete(self, entry: ModelEntry) -> int:
        """See ``Engine.delete``: the whole folder goes."""
        freed = await asyncio.to_thread(delete_model, entry, [Path(entry.path)], self._places)
        if self._scan is not None and not self._scan.done():
            await asyncio.wait([self._scan])  # it may have seen what is gone
        return freed

    async def close(self) -> None:
        """Ends every worker, those that still load included."""
        self._is_closed = True
        await asyncio.gather(*(worker.end("the engine was closed") for worker in self._workers))

    def _check_open(self) -> None:
        if self._is_closed:
            raise ShuttingDown

    async def _start(
        self, entry: ModelEntry, shape: LoadShape, socket_path: Path
    ) -> WorkerProcess[WorkerLog]:
        with contextlib.suppress(OSError):
            self._paths.prefixes.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = worker_settings(entry, shape, socket_path=socket_path, prefix_folder=self._paths.prefixes)
        command = (sys.executable, "-I", "-B", str(WORKER), msgspec.json.encode(settings).decode())
        try:
            worker = await start_worker(command, socket_path, WorkerLog(), ENVIRONMENT)
        except OSError as error:
            raise ModelLoadFailed(
                f"A worker process cannot be started: {error.strerror}; try again."
            ) from error
        self._workers = {other for other in self._workers if not other.is_gone} | {worker}
        return worker


def mlx_is_installed() -> bool:
    """Whether models of MLX can run here."""
    return _installed(PACKAGE) != ""


@cache
def _installed(package: str) -> str:
    """The version of a package, as it was when it was first asked for; "" where it is not there."""
    try:
        return distribution_version(package)
    except PackageNotFoundError:
        return ""


def _accelerator() -> str:
    if sys.platform == "darwin":
        return "Metal"
    return "CUDA" if any(_installed(package) for package in _CUDA_PACKAGES) else "CPU"
