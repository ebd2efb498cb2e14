"""The composition root: builds every part in order, serves, and takes it all down again.

``__main__`` and the tests call ``run``. Nothing else may import this module. Invariants: the lock
is held before anything is bound; parts close in the reverse of the order in which they opened;
the daemon is SERVING only while every part works.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from autotune.address import socket_path

from autotuned import __version__
from autotuned.core.engine import EngineState
from autotuned.core.errors import ShuttingDown
from autotuned.core.memory import SwapPolicy
from autotuned.core.ports import Clock, Downloader, Engine, HardwareProbe, Machine
from autotuned.core.settings import Settings
from autotuned.engines.downloads.downloader import WorkerDownloader
from autotuned.engines.llamacpp.engine import LlamacppEngine
from autotuned.engines.lmstudio.engine import LmstudioEngine
from autotuned.engines.mlx.engine import MlxEngine, mlx_is_installed
from autotuned.engines.ollama.engine import OllamaEngine
from autotuned.engines.stores.folders import StoreFolders, store_folders
from autotuned.hardware.heap import trim_heap
from autotuned.hardware.on_demand import HardwareOnDemand
from autotuned.hardware.probe import PsutilMachine
from autotuned.jobs import Job, Jobs
from autotuned.log import fields
from autotuned.notify import notify
from autotuned.policy.situation import ShapeDefaults
from autotuned.rpc.daemon import DaemonFacts, DaemonServicer
from autotuned.rpc.engines import EngineServicer
from autotuned.rpc.inference import InferenceServicer
from autotuned.rpc.models import ModelServicer
from autotuned.rpc.registry import RegistryServicer
from autotuned.rpc.server import RpcServer
from autotuned.rpc.system import SystemServicer
from autotuned.runtime import InstanceLock, prepare_runtime_folder
from autotuned.services.catalogue import Catalogue
from autotuned.services.engines import Engines
from autotuned.services.inference import Inference
from autotuned.services.learning import Learning
from autotuned.services.models import Models
from autotuned.services.prefixes import Prefixes
from autotuned.services.removal import Removal
from autotuned.services.residency import Residency
from autotuned.services.sessions import REMEMBERED_SECONDS, Sessions
from autotuned.services.system import System
from autotuned.storage.db import Database
from autotuned.storage.learning import SqliteLearningStore
from autotuned.storage.on_demand import RegistryOnDemand
from autotuned.storage.prefixes import FilePrefixStore
from autotuned.storage.requests import SqliteRequestLog

if TYPE_CHECKING:
    from autotuned.choosing import Choosing

# After the drain deadline, how long the rest of the shutdown may take before the process is ended:
# saving KV prefixes most of it, and less than "autotunectl stop" waits.
BACKSTOP_SECONDS = 20.0
# How long finished requests are remembered.
RECORDS_KEPT_SECONDS = 90 * 24 * 3600.0
PRUNE_EVERY_SECONDS = 3600.0
# How soon a shortage of memory is seen. A reading takes about 0.2 ms.
RELIEVE_EVERY_SECONDS = 2.0
CHECKPOINT_EVERY_SECONDS = 2.0
EXPIRE_EVERY_SECONDS = 600.0
# How soon a server that was started, or that died, is noticed when nobody asks.
REFRESH_EVERY_SECONDS = 15.0

_log = logging.getLogger(__name__)


class SystemClock(Clock):
    """The real time."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


def real_hardware(settings: Settings) -> HardwareProbe:
    """The machine that the daemon runs on; what was measured of it is remembered with the data."""
    return HardwareOnDemand(settings.paths.data / "bandwidth.json")


def real_downloader(settings: Settings) -> Downloader:
    """Fetches into the daemon's own store, and into the cache that the Hugging Face libraries share."""
    return WorkerDownloader(
        settings=settings.pull,
        registry_store=settings.paths.registry_store,
        hub_cache=_hub_cache(settings, _other_stores(settings)),
        runs_mlx=settings.mlx.mode != "off" and mlx_is_installed(),
        environment=os.environ,
    )


def _other_stores(settings: Settings) -> StoreFolders:
    """The stores of other programs."""
    return store_folders(settings.stores, os.environ, Path.home())


def _hub_cache(settings: Settings, stores: StoreFolders) -> Path:
    """Where models of Hugging Face lie: where the shared cache is off, downloads have one of their own."""
    return stores.huggingface or settings.paths.own_hub_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What tests and benchmarks may put in place of the real thing."""

    engines: Callable[[Settings, Clock], Sequence[Engine]]
    machine: Callable[[], Machine] = PsutilMachine
    hardware: Callable[[Settings], HardwareProbe] = real_hardware
    downloader: Callable[[Settings], Downloader] = real_downloader
    clock: Clock = field(default_factory=SystemClock)


def real_engines(settings: Settings, clock: Clock) -> Sequence[Engine]:
    """The engines of a daemon in use, in the order in which they are taken where nothing else decides."""
    stores = _other_stores(settings)
    stores = replace(stores, huggingface=_hub_cache(settings, stores))
    others: Sequence[Engine] = ()
    if settings.openai.upstreams:
        from autotuned.engines.openai.engine import openai_engines  # noqa: PLC0415 - few have any, all pay

        others = openai_engines(settings.openai, environment=os.environ, clock=clock)
    return (
        LlamacppEngine(
            paths=settings.paths,
            settings=settings.llamacpp,
            files=settings.models.files,
            stores=stores,
            clock=clock,
        ),
        MlxEngine(paths=settings.paths, settings=settings.mlx, stores=stores, clock=clock),
        OllamaEngine(settings=settings.ollama, clock=clock, insecure_hosts=settings.pull.insecure_hosts),
        LmstudioEngine(
            settings=settings.lmstudio,
            clock=clock,
            keep_alive_seconds=settings.models.keep_alive_seconds,
            models_folder=stores.lmstudio,
        ),
        *others,
    )


async def run(
    settings: Settings,
    *,
    parts: Parts | None = None,
    stop: asyncio.Event | None = None,
    on_serving: Callable[[], None] = lambda: None,
) -> None:
    """Serves until ``stop`` is set, a signal comes or a client asks for the end.

    Raises RuntimeFolderUnusable, AlreadyRunning and what the storage raises when it cannot open.
    """
    parts = parts or Parts(engines=real_engines)
    stop = stop or asyncio.Event()
    async with AsyncExitStack() as stack:
        prepare_runtime_folder(settings.paths.runtime)
        socket = socket_path(settings.paths.runtime)
        stack.enter_context(InstanceLock(settings.paths.runtime))
        _handle_signals(stop, stack)
        backstop = _backstop(settings.daemon.drain_seconds + BACKSTOP_SECONDS)
        stack.callback(backstop.cancel)  # when all else is closed
        daemon = await _build(settings, parts, stop, stack)
        await daemon.server.bind(socket)
        stack.callback(socket.unlink, missing_ok=True)
        await stack.enter_async_context(Jobs(_jobs(daemon.services, parts.clock)))
        await daemon.services.residency.refresh()
        await daemon.services.system.snapshot()  # the first reading starts the CPU measurement
        _settle_memory()
        await daemon.server.serve()
        daemon.mark_serving()
        notify("READY=1", os.environ)
        _log.info("serving", extra=fields(version=__version__, socket=socket, seconds=daemon.startup_seconds))
        on_serving()
        await stop.wait()
        backstop.start()
        notify("STOPPING=1", os.environ)
        await _shut_down(daemon, settings.daemon.drain_seconds)
    _log.info("stopped")


class _OnDemand:
    """What chooses and downloads models, from the first question to the end of the daemon."""

    def __init__(self, build: Callable[[], Choosing]) -> None:
        self._build = build
        self._built: Choosing | None = None
        self._is_closed = False

    def __call__(self) -> Choosing:
        """Builds it if that is the first question. Raises ``ShuttingDown``."""
        if self._is_closed:
            raise ShuttingDown
        self._built = self._built or self._build()
        return self._built

    async def close(self) -> None:
        """Ends every download, and lets nothing begin. Safe to call twice."""
        self._is_closed = True
        if self._built is not None:
            await self._built.pulls.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Services:
    """What serves, without the wire."""

    engines: Engines
    request_log: SqliteRequestLog
    learning_store: SqliteLearningStore
    prefixes: Prefixes
    residency: Residency
    models: Models
    inference: Inference
    system: System
    choosing: _OnDemand
    removal: Removal


class _Daemon:
    """The parts that live between start and stop."""

    def __init__(self, *, server: RpcServer, services: _Services) -> None:
        self.server = server
        self.services = services
        self.started_at = psutil.Process().create_time()
        self.startup_seconds = 0.0

    def mark_serving(self) -> None:
        """Remembers how long the start took, from the start of the process."""
        self.startup_seconds = round(time.time() - self.started_at, 3)


async def _open_services(settings: Settings, parts: Parts, stack: AsyncExitStack) -> _Services:
    """Opens stores and what reads them, then builds upwards."""
    clock = parts.clock
    database = await stack.enter_async_context(Database(settings.paths.data / "autotune.db"))
    request_log, learning_store = SqliteRequestLog(database), SqliteLearningStore(database)
    prefix_store = FilePrefixStore(database, settings.paths.prefixes)
    prefixes = Prefixes(store=prefix_store, settings=settings.prefixes, clock=clock)
    stack.push_async_callback(prefixes.close)  # last: checksums of large files may take their time
    await prefixes.open()
    learning = Learning(store=learning_store)
    stack.push_async_callback(learning.close)
    await learning.open()
    sessions = Sessions(learning=learning, store=learning_store, clock=clock)
    stack.push_async_callback(sessions.close)
    await sessions.open()
    machine = parts.machine()
    residency = Residency(machine=machine, clock=clock)
    engines = tuple(parts.engines(settings, clock))
    for engine in engines:
        stack.push_async_callback(engine.close)
    catalogue = Catalogue(engines)
    models = Models(
        catalogue=catalogue,
        settings=settings.models,
        defaults=_shape_defaults(settings),
        swap_policy=SwapPolicy(settings.memory.swap),
        machine=machine,
        residency=residency,
        learning=learning,
        keeper=prefixes,
        clock=clock,
        prefer=settings.engines.prefer,
    )
    inference = Inference(
        models=models,
        model_settings=settings.models,
        queue_settings=settings.queue,
        request_log=request_log,
        learning=learning,
        sessions=sessions,
        prefixes=prefixes,
        clock=clock,
    )
    registry = RegistryOnDemand(settings.paths.own_registry)

    def build() -> Choosing:
        from autotuned.choosing import build_choosing  # noqa: PLC0415 - memory that most never need

        return build_choosing(
            models=models,
            residency=residency,
            registry=registry,
            probe=parts.hardware(settings),
            downloader=parts.downloader(settings),
            defaults=_shape_defaults(settings),
            clock=clock,
        )

    choosing = _OnDemand(build)
    stack.push_async_callback(choosing.close)
    return _Services(
        choosing=choosing,
        removal=Removal(catalogue=catalogue, models=models, prefixes=prefixes),
        engines=Engines(
            catalogue=catalogue,
            models=models,
            residency=residency,
            store=prefix_store,
            registry=registry,
        ),
        request_log=request_log,
        learning_store=learning_store,
        prefixes=prefixes,
        residency=residency,
        models=models,
        inference=inference,
        system=System(
            machine=machine,
            residency=residency,
            models=models,
            inference=inference,
            prefixes=prefixes,
            clock=clock,
        ),
    )


async def _build(settings: Settings, parts: Parts, stop: asyncio.Event, stack: AsyncExitStack) -> _Daemon:
    services = await _open_services(settings, parts, stack)

    def facts() -> DaemonFacts:
        return DaemonFacts(
            version=__version__,
            process_id=os.getpid(),
            started_at=daemon.started_at,
            startup_seconds=daemon.startup_seconds,
            data_directory=str(settings.paths.data),
            runtime_directory=str(settings.paths.runtime),
            log_file=str(settings.daemon.log_file or ""),
            drain_seconds=settings.daemon.drain_seconds,
            engines=tuple(engine for engine in services.models.engines if _is_ready(engine)),
        )

    models, inference, system = services.models, services.inference, services.system
    server = RpcServer(
        inference=InferenceServicer(inference=inference, models=models),
        models=ModelServicer(
            models=models,
            inference=inference,
            prefixes=services.prefixes,
            system=system,
            engines=services.engines,
            pulls=lambda: services.choosing().pulls,
            removal=services.removal,
        ),
        registry=RegistryServicer(recommender=lambda: services.choosing().recommender),
        engines=EngineServicer(engines=services.engines),
        system=SystemServicer(system=system, reports=lambda: services.choosing().reports),
        daemon=DaemonServicer(facts=facts, stop=stop.set),
    )
    daemon = _Daemon(server=server, services=services)
    return daemon


def _is_ready(engine: Engine) -> bool:
    return engine.status().state is EngineState.READY


def _shape_defaults(settings: Settings) -> ShapeDefaults:
    return ShapeDefaults(
        slots_count=settings.llamacpp.slots,
        batch_tokens=0,
        flash_attention=True,
        kv_cache=settings.models.kv_cache,
        memory_mapped=True,
        cores_count=settings.llamacpp.threads or psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        margin_bytes=settings.memory.margin_mib << 20,
        prompt_cache_share=settings.memory.prompt_cache,
        gpu=sys.platform == "darwin",
    )


def _jobs(services: _Services, clock: Clock) -> Sequence[Job]:
    async def prune() -> None:
        await services.request_log.prune(RECORDS_KEPT_SECONDS, clock.now())
        await services.learning_store.prune(REMEMBERED_SECONDS, clock.now())

    return (
        Job("prune-records", PRUNE_EVERY_SECONDS, prune),
        Job("relieve-memory", RELIEVE_EVERY_SECONDS, services.residency.relieve),
        Job("checkpoint-prefixes", CHECKPOINT_EVERY_SECONDS, services.prefixes.checkpoint),
        Job("refresh-engines", REFRESH_EVERY_SECONDS, services.engines.refresh, at_once=True),
        Job("expire-prefixes", EXPIRE_EVERY_SECONDS, services.prefixes.expire),
    )


async def _shut_down(daemon: _Daemon, drain_seconds: float) -> None:
    """Refuses, drains, saves what was computed and closes what serves."""
    services = daemon.services
    _log.info("stopping", extra=fields(active_requests=services.inference.active_requests_count))
    await daemon.server.refuse()
    services.inference.refuse_new_work()
    services.system.end_watches()
    await services.choosing.close()
    await services.inference.drain(drain_seconds)
    await services.models.close()
    await daemon.server.stop(1.0)


def _backstop(seconds: float) -> threading.Timer:
    """Started when the shutdown begins, it ends the process where engines, disk or clients hang."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    return timer


def _handle_signals(stop: asyncio.Event, stack: AsyncExitStack) -> None:
    """The first SIGTERM or SIGINT drains, the second ends the process at once.

    Workers are ended by their guards, and every acknowledged record is on disk already.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def handle() -> None:
        if stop.is_set():
            _log.warning("second signal: ending at once")
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)
        stack.callback(loop.remove_signal_handler, number)


def _settle_memory() -> None:
    """What start-up made stays, and what it freed goes back.

    The collector need not look at what stays again, which shortens its pauses.
    """
    gc.collect()
    gc.freeze()
    trim_heap()
