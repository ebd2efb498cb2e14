"""The engine: Ollama's server as one of the daemon's engines.

``daemon`` makes one; ``services`` use it through the port ``Engine``.
Invariants: no load option is sent but the context; a load that fails or is cancelled leaves nothing in the
server's memory; after ``close`` nothing that this engine started is left, and nothing else is touched.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from autotuned.core.download import Downloaded, DownloadProgress
from autotuned.core.engine import Capabilities, EngineResident, EngineState, EngineStatus, Finding
from autotuned.core.errors import ModelInvalid, ModelNotFound, ShuttingDown
from autotuned.core.model import LoadProgress, ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Clock
from autotuned.core.settings import OllamaSettings
from autotuned.engines.endpoint import EndpointInvalid
from autotuned.engines.ollama.abilities import capabilities_of
from autotuned.engines.ollama.address import endpoint_of, is_loopback, url_finding
from autotuned.engines.ollama.body import Incarnation
from autotuned.engines.ollama.catalog import Catalog
from autotuned.engines.ollama.client import Running
from autotuned.engines.ollama.environment import settings_shown
from autotuned.engines.ollama.facts import Known
from autotuned.engines.ollama.living import Living
from autotuned.engines.ollama.loading import Answer, Loading
from autotuned.engines.ollama.model import OllamaModel
from autotuned.engines.ollama.names import listed_name
from autotuned.engines.ollama.pulling import Pulling
from autotuned.engines.ollama.requests import OllamaRequests
from autotuned.engines.ollama.server import Server
from autotuned.engines.ollama.shape import applied_shape, footprint_of
from autotuned.engines.ollama.versions import features_of
from autotuned.log import fields

NAME = "ollama"
# A list that is younger is not asked for again.
FRESH_SECONDS = 5.0
# How long a list waits for a look, and a refresh: a look at a server that hangs goes on without them.
PATIENCE_SECONDS = 2.5
REFRESH_SECONDS = 5.0
# A model that is kept until somebody says otherwise expires in centuries.
FOREVER_SECONDS = 10 * 366 * 24 * 3600.0

_log = logging.getLogger(__name__)


class OllamaEngine:
    """Models of an Ollama server. ``environment`` is the daemon's own where none is given.

    ``insecure_hosts`` are registries that it pulls from without TLS, beside those of this machine.
    """

    def __init__(
        self,
        *,
        settings: OllamaSettings,
        clock: Clock,
        environment: Mapping[str, str] | None = None,
        insecure_hosts: tuple[str, ...] = (),
    ) -> None:
        variables = os.environ if environment is None else environment
        self._settings = settings
        self._clock = clock
        self._living = Living(clock=clock)
        self._url_finding: tuple[Finding, ...] = ()
        try:
            endpoint = endpoint_of(settings.url, variables)
        except EndpointInvalid as error:
            self._url_finding = (url_finding(error),)
            endpoint = endpoint_of("", {})
        self._is_local = is_loopback(endpoint)
        self._server = Server(
            endpoint=endpoint,
            settings=settings,
            search_path=variables.get("PATH"),
            clock=clock,
            on_gone=self._server_gone,
        )
        self._catalog = Catalog(endpoint, files_are_here=self._is_local)
        self._loading = Loading(
            server=self._server,
            catalog=self._catalog,
            clock=clock,
            timeout_seconds=settings.load_timeout_seconds,
        )
        self._pulling = Pulling(
            server=self._server,
            silence_seconds=settings.silence_timeout_seconds,
            insecure_hosts=insecure_hosts,
        )
        self._residents: tuple[Running, ...] = ()
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at: float | None = None
        self._looks_since = 0.0
        self._is_listed = False
        self._unloads: set[asyncio.Task[bool]] = set()
        self._is_closed = False

    @property
    def name(self) -> str:
        """The engine's name on the wire."""
        return NAME

    @property
    def version(self) -> str:
        """That of the server; "" while nobody has heard from it."""
        return self._server.version

    def capabilities(self) -> Capabilities:
        """What this version does, through this adapter."""
        return capabilities_of(self._settings, features_of(self._server.version), is_local=self._is_local)

    def status(self) -> EngineStatus:
        """How the server stood at the last look, and what others did to the daemon's models."""
        server = self._server
        state, detail = server.state, server.detail
        if self._url_finding and self._is_on:
            state, detail = EngineState.UNREACHABLE, self._url_finding[0].text
        elif state is EngineState.READY and not self._is_listed:
            state, detail = EngineState.STARTING, "it has not told all of its models yet"
        return EngineStatus(
            name=NAME,
            state=state,
            version=server.version,
            address=server.endpoint.url,
            detail=detail,
            accelerator=server.accelerator,
            server_settings=settings_shown(self._settings) if server.is_ours else (),
            findings=(*self._url_finding, *server.findings, *self._living.findings()),
        )

    async def refresh(self) -> None:
        """See ``Engine.refresh``. Callers at the same time share one look."""
        await self._look_within(REFRESH_SECONDS)

    async def models(self) -> Sequence[ModelEntry]:
        """The models that the server has; looks again where the last look is some seconds old."""
        await self._look_if_stale()
        return tuple(self._entry(known) for known in self._catalog.models)

    async def residents(self) -> Sequence[EngineResident]:
        """What the server has in memory; looks again like ``models``."""
        await self._look_if_stale()
        now = self._clock.now()
        return tuple(
            EngineResident(
                model_id=running.name,
                context_tokens=running.context_length,
                memory_bytes=running.size,
                accelerator_bytes=running.size_vram,
                expires_at=_expiry(running.expires_at, now),
            )
            for running in self._residents
        )

    async def unload_resident(self, model_id: str) -> bool:
        """See ``Engine.unload_resident``. Names that share a file leave together."""
        if self._server.state is not EngineState.READY:
            return False
        try:
            if await self._loading.find(self._catalog.runner_key(model_id)) is None:
                return False
        except Answer as error:
            raise self._server.unreachable(f"does not say what it has in memory ({error})") from error
        for model in self._living.all:
            if model.incarnation.model.runner_key == self._catalog.runner_key(model_id):
                self._living.end(model, "it was unloaded")
        if not await self._unload(model_id):
            raise self._server.unreachable(
                f'has not let go of "{model_id}": it hangs, or others use it', advice="unload it again later"
            )
        return True

    async def load(
        self, entry: ModelEntry, shape: LoadShape, on_progress: Callable[[LoadProgress], None]
    ) -> OllamaModel:
        """See ``Engine.load``."""
        self._check_open()
        if entry.facts is None:
            raise ModelInvalid(entry.problem, model=entry.id)
        await self._server.ready()
        known = await self._known(entry.id)
        self._check_open()
        incarnation = Incarnation(
            model=known, context_tokens=shape.context_tokens, features=features_of(self._server.version)
        )
        others_have_it = not self._is_ours(known) and await self._loading.was_there(incarnation)
        try:
            running, load_seconds = await self._loading.load(incarnation, on_progress)
            self._check_open()
        except BaseException:
            await self._take_back(known)
            self._check_open()
            raise
        applied = applied_shape(shape, running, self._settings)
        if applied.context_tokens != shape.context_tokens:
            _log.warning(
                "ollama loaded another context",
                extra=fields(
                    model=known.name,
                    context_tokens=applied.context_tokens,
                    planned_context_tokens=shape.context_tokens,
                ),
            )
        model = OllamaModel(
            incarnation_id=f"{NAME}-{uuid.uuid4().hex}",
            incarnation=incarnation,
            shape=applied,
            footprint=footprint_of(running, entry.facts, applied),
            load_seconds=load_seconds,
            requests=OllamaRequests(
                server=self._server,
                incarnation=incarnation,
                silence_seconds=self._settings.silence_timeout_seconds,
            ),
            leave=self._leave,
            give_back=self._give_back if others_have_it else None,
            on_reload=self._living.note_reload,
        )
        self._living.add(model)
        return model

    async def pull(self, name: str, on_progress: Callable[[DownloadProgress], None]) -> Downloaded:
        """See ``Engine.pull``. Starts the server like a load does; ``models`` has the model at once."""
        self._check_open()
        await self._server.ready()
        told = await self._pulling.pull(name, on_progress)
        await self._look_anew()
        known = self._catalog.get_like(listed_name(name))
        size_bytes = max(told.total_bytes, known.size_bytes if known else 0)
        return Downloaded(
            model_id=known.name if known else listed_name(name),
            engine=NAME,
            size_bytes=size_bytes,
            # Of layers that come in a moment it tells nothing, but of each that was there before.
            fetched_bytes=told.fetched_bytes + size_bytes - told.total_bytes,
        )

    async def delete(self, entry: ModelEntry) -> int:
        """See ``Engine.delete``. What another name shares with it stays, and frees nothing."""
        self._check_open()
        await self._server.ready()
        is_shared = self._catalog.is_shared(entry.id)
        was_there = await self._pulling.delete(entry.id)
        await self._look_anew()
        return entry.size_bytes if was_there and not is_shared else 0

    async def close(self) -> None:
        """Unloads what the daemon loaded into somebody else's server, and ends one that it started.

        What others had in memory before stays there.
        """
        self._is_closed = True
        self._pulling.end()
        if not self._server.is_ours:
            await asyncio.gather(*(model.release() for model in self._living.all))
        await self._server.close()
        self._living.end_all("the engine was closed")
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        await asyncio.gather(*self._unloads)

    @property
    def _is_on(self) -> bool:
        return self._settings.mode != "off"

    def _check_open(self) -> None:
        if self._is_closed:
            raise ShuttingDown

    def _server_gone(self, cause: str) -> None:
        self._residents = ()
        self._living.end_all(cause)

    async def _look_if_stale(self) -> None:
        now = self._clock.monotonic()
        # A request may have found it there again since.
        is_back = self._server.state is EngineState.READY and not self._is_listed
        if self._refreshed_at is None or now - self._refreshed_at >= FRESH_SECONDS or is_back:
            await self._look_within(PATIENCE_SECONDS)

    async def _look_anew(self) -> None:
        """Waits for a look that begins now: one that is under way may have seen what was before."""
        if self._refreshing is not None and not self._refreshing.done():
            await asyncio.wait([self._refreshing])
        await self._look_within(self._settings.load_timeout_seconds)

    async def _look_within(self, seconds: float) -> None:
        """Waits for a look, until it has taken so long; it goes on."""
        if self._is_closed or not self._is_on or self._url_finding:
            return
        now = self._clock.monotonic()
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(), name="refresh ollama")
            self._looks_since = now
        done, _ = await asyncio.wait([self._refreshing], timeout=max(0.0, self._looks_since + seconds - now))
        for look in done:
            look.result()

    async def _refresh(self) -> None:
        try:
            await self._look()
        finally:
            # Not before: who asks meanwhile waits for this look instead of taking half of it.
            self._refreshed_at = self._clock.monotonic()

    async def _look(self) -> None:
        await self._server.look()
        if self._server.state is not EngineState.READY:
            self._catalog.forget()
            self._is_listed = False
            self._residents = ()
            return
        before = self._living.all
        try:
            await self._catalog.look()
            self._is_listed = True
            self._residents = tuple(await self._loading.running())
        except Answer as error:
            _log.warning("ollama told nothing", extra=fields(problem=str(error)))
            return
        self._living.compare(before, self._residents, self._catalog.runner_key)

    async def _known(self, model_id: str) -> Known:
        """The model as the server has it. Raises ``ModelNotFound``."""
        if self._catalog.get(model_id) is None:
            await self._look_within(self._settings.load_timeout_seconds)
        known = self._catalog.get(model_id)
        if known is None:
            raise ModelNotFound(model_id, "", engine=NAME)
        return known

    def _entry(self, known: Known) -> ModelEntry:
        return ModelEntry(
            id=known.name,
            engine=NAME,
            path=f"{self._server.endpoint.url}/{known.name}",
            size_bytes=known.size_bytes,
            facts=known.facts,
            problem=known.problem,
        )

    async def _leave(self, model: OllamaModel) -> None:
        """Has the server let go of a model, unless another of ours runs in the same process."""
        if self._living.remove(model):
            await self._unload(model.incarnation.model.name)

    async def _give_back(self, model: OllamaModel) -> None:
        """Leaves a model to those who had it before, unless another of ours runs in the same process."""
        if self._living.remove(model):
            await self._loading.give_back(model.incarnation)

    def _is_ours(self, known: Known) -> bool:
        return any(model.incarnation.model.runner_key == known.runner_key for model in self._living.all)

    async def _unload(self, name: str) -> bool:
        """Has the server let go of it, and tells of it no more before the next look; whether it has."""
        if not await self._loading.unload(name):
            return False
        key = self._catalog.runner_key(name)
        self._residents = tuple(
            each for each in self._residents if self._catalog.runner_key(each.name) != key
        )
        return True

    async def _take_back(self, known: Known) -> None:
        """Unloads what a load may have left; goes on even if its caller is cancelled again."""
        if self._is_ours(known):
            return
        unloading = asyncio.create_task(self._unload(known.name), name=f"take back {known.name}")
        self._unloads.add(unloading)
        unloading.add_done_callback(self._unloads.discard)
        await asyncio.shield(unloading)


def _expiry(text: str, now: float) -> float:
    """When a model leaves, in seconds since the epoch; 0 for one that stays, or where it cannot be read."""
    try:
        expires_at = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return 0.0 if expires_at - now > FOREVER_SECONDS else expires_at
