"""Loaded models: each is a process of its own that runs llama.cpp's server on a Unix socket.

Invariant: an instance that ``Instances.all`` has answers; one that was unloaded, evicted or has crashed is not
there any more. Loading a model that is loaded makes a second instance, as LM Studio does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.lmstudio.faults import Faults, sentence_of_crash
from tests.fakes.lmstudio.models import ModelFile
from tests.fakes.lmstudio.problems import Problem, rest_problem, text_problem
from tests.fakes.lmstudio.settings import Settings

PROGRAM = Path(__file__).parents[1] / "llamacpp_server.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """The configuration of a load, by the names of the REST API."""

    context_length: int
    eval_batch_size: int = 512
    parallel: int = 4
    flash_attention: bool = True
    offload_kv_cache_to_gpu: bool = True

    def to_json(self) -> dict[str, Any]:
        """As the REST API shows it."""
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class Instance:
    """One loaded model."""

    id: str
    model: ModelFile
    config: LoadConfig
    process: asyncio.subprocess.Process
    client: httpx.AsyncClient
    jit: bool
    ttl_seconds: float | None
    load_seconds: float
    active: int = 0
    requests_count: int = 0
    end: str | None = None
    expiry: asyncio.TimerHandle | None = None

    def to_json(self) -> dict[str, Any]:
        """For tests."""
        return {
            "id": self.id,
            "model": self.model.key,
            "config": self.config.to_json(),
            "jit": self.jit,
            "ttl_seconds": self.ttl_seconds,
            "active": self.active,
            "requests": self.requests_count,
            "process_id": self.process.pid,
        }

    def lost(self) -> Problem:
        """Why this instance does not answer any more."""
        if self.end in (None, "crashed"):
            return text_problem(sentence_of_crash(self.process.returncode))
        return text_problem("Model unloaded.")


@dataclass(slots=True, kw_only=True)
class Instances:
    """All loaded models, and what happened to them."""

    settings: Settings
    faults: Faults
    all: dict[str, Instance] = field(default_factory=dict)
    loads: list[dict[str, Any]] = field(default_factory=list)
    unloads: list[dict[str, Any]] = field(default_factory=list)
    _reserved: set[str] = field(default_factory=set)
    _jit_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def of_model(self, key: str) -> list[Instance]:
        """The instances of a model, the oldest first."""
        return [instance for instance in self.all.values() if instance.model.key == key]

    async def load(
        self, model: ModelFile, config: LoadConfig, *, jit: bool = False, ttl_seconds: float | None = None
    ) -> Instance:
        """A new instance, whether or not there is one."""
        await self.faults.at_load()
        if config.context_length > model.max_context_tokens:
            raise rest_problem(400, "invalid_request", "context_length is too large", param="context_length")
        began = time.monotonic()
        with self._free_id(model.key) as instance_id:
            process, client = await self._start(model, config)
            instance = Instance(
                id=instance_id,
                model=model,
                config=config,
                process=process,
                client=client,
                jit=jit,
                ttl_seconds=ttl_seconds,
                load_seconds=round(time.monotonic() - began, 3),
            )
            self.all[instance_id] = instance
        self.loads.append(instance.to_json())
        self._in_background(self._watch(instance))
        self._rest(instance)
        return instance

    async def load_just_in_time(self, model: ModelFile, ttl_seconds: float | None) -> Instance:
        """The instance that a request to a model that is not loaded makes; the previous such one leaves.

        Requests at the same time share one load here.
        """
        async with self._jit_lock:
            if there := self.of_model(model.key):
                return there[0]
            if self.settings.auto_evict:
                for other in [instance for instance in self.all.values() if instance.jit]:
                    await self.unload(other, "evicted")
            config = LoadConfig(
                context_length=min(self.settings.context_tokens, model.max_context_tokens),
                parallel=self.settings.slots_count,
            )
            ttl = self.settings.jit_ttl_seconds if ttl_seconds is None else ttl_seconds
            return await self.load(model, config, jit=True, ttl_seconds=ttl)

    async def unload(self, instance: Instance, reason: str) -> None:
        """Ends an instance, busy or not."""
        if self.all.pop(instance.id, None) is None:
            return
        instance.end = reason
        if instance.expiry is not None:
            instance.expiry.cancel()
        self.unloads.append({"id": instance.id, "reason": reason})
        if instance.process.returncode is None:
            instance.process.kill()
        await instance.process.wait()
        await instance.client.aclose()

    @asynccontextmanager
    async def busy(self, instance: Instance) -> AsyncIterator[None]:
        """For the time of a request: an instance that does something is not idle."""
        instance.active += 1
        instance.requests_count += 1
        if instance.expiry is not None:
            instance.expiry.cancel()
        try:
            yield
        finally:
            instance.active -= 1
            self._rest(instance)

    def _rest(self, instance: Instance) -> None:
        """Starts the time after which an idle instance leaves."""
        if instance.active == 0 and instance.ttl_seconds is not None:
            loop = asyncio.get_running_loop()
            instance.expiry = loop.call_later(
                instance.ttl_seconds, lambda: self._in_background(self.unload(instance, "expired"))
            )

    async def _watch(self, instance: Instance) -> None:
        await instance.process.wait()
        await self.unload(instance, "crashed")

    def _in_background(self, what: Any) -> None:
        task = asyncio.ensure_future(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextmanager
    def _free_id(self, key: str) -> Iterator[str]:
        taken = self.all.keys() | self._reserved
        number = 1
        while (instance_id := key if number == 1 else f"{key}:{number}") in taken:
            number += 1
        self._reserved.add(instance_id)
        try:
            yield instance_id
        finally:
            self._reserved.remove(instance_id)

    async def _start(
        self, model: ModelFile, config: LoadConfig
    ) -> tuple[asyncio.subprocess.Process, httpx.AsyncClient]:
        socket = f"{self.settings.runtime_folder}/{time.monotonic_ns():x}.sock"
        settings = {
            "model": str(model.path),
            "alias": model.key,
            "address": socket,
            "context_tokens": config.context_length,
            "batch_tokens": config.eval_batch_size,
            "flash_attention": config.flash_attention,
            "slots_count": config.parallel,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-B", PROGRAM, json.dumps(settings), stdin=asyncio.subprocess.PIPE
        )
        client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=httpx.Limits(max_keepalive_connections=0)),
            base_url="http://engine",
            timeout=None,  # noqa: S113 - a request may take as long as it takes
        )
        try:
            await _until_ready(process, client)
        except BaseException:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await client.aclose()
            raise
        return process, client


async def _until_ready(process: asyncio.subprocess.Process, client: httpx.AsyncClient) -> None:
    while process.returncode is None:
        try:
            if (await client.get("/health")).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        await asyncio.sleep(0.01)
    raise rest_problem(500, "internal_error", "Failed to load model. Error loading model.")


def config_from(body: dict[str, Any], default: LoadConfig) -> LoadConfig:
    """The default with what the body of a load sets."""
    names = ("context_length", "eval_batch_size", "flash_attention", "offload_kv_cache_to_gpu")
    return replace(default, **{name: body[name] for name in names if name in body})
