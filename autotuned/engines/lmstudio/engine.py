"""The engine: what LM Studio's server has, and incarnations of what is loaded there.

``daemon`` makes one; ``services`` use it through the port ``Engine``.
Invariants: with mode "off" nothing is ever sent; whoever waits for a list never waits longer than a hung
server is given; a load that nobody wants any more is unloaded once it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autotuned.core.download import Downloaded, DownloadProgress
from autotuned.core.engine import Capabilities, EngineResident, EngineStatus
from autotuned.core.errors import AutotuneError, EngineUnreachable, ModelInvalid, ShuttingDown, Unsupported
from autotuned.core.memory import Footprint
from autotuned.core.model import LoadPhase, LoadProgress, ModelEntry, ModelFacts
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Clock
from autotuned.core.settings import LmstudioSettings
from autotuned.engines.lmstudio import status as statuses
from autotuned.engines.lmstudio.access import DEFAULT_URL, AccessProblem, endpoint_of, is_here
from autotuned.engines.lmstudio.body import Addressee, ttl_seconds
from autotuned.engines.lmstudio.facts import NAME, entry_of
from autotuned.engines.lmstudio.gguf_files import GgufFiles
from autotuned.engines.lmstudio.instances import Instances, Use
from autotuned.engines.lmstudio.listing import Api, ListedModel, Listing
from autotuned.engines.lmstudio.model import LmstudioModel
from autotuned.engines.lmstudio.requests import InstanceRequests
from autotuned.engines.lmstudio.rest import LIST_SECONDS, Rest, ServerProblem
from autotuned.engines.lmstudio.shapes import applied_shape, capabilities
from autotuned.log import fields

# A list that is not older than this is good enough; so is the knowledge that there is none.
FRESH_SECONDS = 5.0
# How long the end of the daemon waits for loads that nobody wants any more.
CLOSING_SECONDS = 10.0

_log = logging.getLogger(__name__)


class LmstudioEngine:
    """LM Studio, which its user runs.

    ``keep_alive_seconds`` is the configured one: how long what an old server loads just in time may idle;
    ``models_folder`` is LM Studio's own, None where it is not known; ``home`` the user's.
    """

    def __init__(
        self,
        *,
        settings: LmstudioSettings,
        clock: Clock,
        keep_alive_seconds: float = -1.0,
        models_folder: Path | None = None,
        home: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._keep_alive_seconds = keep_alive_seconds
        self._home = home
        self._environment = environment
        self._files = GgufFiles(models_folder)
        self._instances = Instances(load_seconds=settings.load_timeout_seconds, on_listing=self._note)
        self._rest: Rest | None = None
        self._listing: Listing | None = None
        self._api = Api.V1
        self._slots_count = 1
        self._entries: tuple[ModelEntry, ...] = ()
        self._described: tuple[ListedModel, ...] = ()
        self._status = statuses.OFF
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = float("-inf")
        self._loads: set[asyncio.Task[LmstudioModel]] = set()
        self._abandoned: set[asyncio.Task[None]] = set()
        self._was_heard = False
        self._is_closed = False

    @property
    def name(self) -> str:
        """The engine's name on the wire."""
        return NAME

    @property
    def version(self) -> str:
        """What its API says of it: LM Studio does not tell its version."""
        return self._status.version

    def capabilities(self) -> Capabilities:
        """Of the second API as long as the server is not known to have the first alone."""
        is_local = self._rest is None or is_here(self._rest.endpoint)
        return capabilities(self._api, is_local=is_local, slots_count=self._slots_count)

    def status(self) -> EngineStatus:
        """How it stood at the last look."""
        return self._status

    async def refresh(self) -> None:
        """Lists again. Callers at the same time share one look."""
        if self._settings.mode == "off":
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(), name="look at LM Studio")
        await asyncio.shield(self._refreshing)

    async def models(self) -> Sequence[ModelEntry]:
        """The models of the last look, or of a new one where that was some time ago."""
        if self._clock.monotonic() - self._refreshed_at >= FRESH_SECONDS:
            await self.refresh()
        return self._entries

    async def residents(self) -> Sequence[EngineResident]:
        """What was in memory at the last look, whoever loaded it."""
        await self.models()
        if self._listing is None:
            return ()
        return tuple(
            EngineResident(model_id=model.key, context_tokens=instance.context_tokens)
            for model in self._listing.models.values()
            for instance in model.instances
        )

    async def unload_resident(self, model_id: str) -> bool:
        """Unloads every instance of a model that is in nobody's use here. Raises ``EngineUnreachable``."""
        try:
            return await self._instances.unload_foreign(self._server(), model_id)
        except (AccessProblem, ServerProblem) as error:
            raise EngineUnreachable(f"LM Studio did not unload it: {error}; unload it in the app.") from error

    async def load(
        self, entry: ModelEntry, shape: LoadShape, on_progress: Callable[[LoadProgress], None]
    ) -> LmstudioModel:
        """See ``Engine.load``. Cancelled, it goes on unseen, and what it loads is unloaded."""
        if self._is_closed:
            raise ShuttingDown
        if entry.facts is None:
            raise ModelInvalid(entry.problem, model=entry.id)
        started = self._clock.monotonic()
        on_progress(LoadProgress(LoadPhase.STARTING, 0.0))
        load = asyncio.create_task(
            self._load(entry, entry.facts, shape), name=f"load {entry.id} in LM Studio"
        )
        self._loads.add(load)
        load.add_done_callback(self._loads.discard)
        try:
            model = await asyncio.shield(load)
        except asyncio.CancelledError:
            abandoned = asyncio.create_task(_abandon(load), name=f"give up {entry.id} in LM Studio")
            self._abandoned.add(abandoned)
            abandoned.add_done_callback(self._abandoned.discard)
            raise
        on_progress(LoadProgress(LoadPhase.READY, self._clock.monotonic() - started))
        return model

    async def pull(self, name: str, on_progress: Callable[[DownloadProgress], None]) -> Downloaded:
        """Never: what there is to choose from is shown in its app alone."""
        _ = on_progress
        raise Unsupported(
            f'LM Studio downloads "{name}" in its app or with "lms get"; do it there, or name no engine.'
        )

    async def delete(self, entry: ModelEntry) -> int:
        """Never: its API deletes nothing, and its folder is its own."""
        raise Unsupported(f'"{entry.id}" is LM Studio\'s; delete it in its app, under "My Models".')

    async def close(self) -> None:
        """Unloads what the daemon loaded, those that still load included; what others loaded stays."""
        self._is_closed = True
        if waiting := self._abandoned | self._loads:
            _, late = await asyncio.wait(waiting, timeout=CLOSING_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._refreshing is not None:
            await asyncio.wait([self._refreshing])
        with contextlib.suppress(AccessProblem):
            await self._instances.close(self._server())

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(LIST_SECONDS):
                listing = await self._instances.look(self._server())
            await self._describe(listing)
        except (AccessProblem, ServerProblem, TimeoutError) as error:
            problem = (
                error if str(error) else ServerProblem(f"it did not answer within {LIST_SECONDS:g} seconds")
            )
            self._entries, self._described, self._listing = (), (), None
            url = self._rest.endpoint.url if self._rest else self._settings.url or DEFAULT_URL
            self._status = statuses.unreachable(problem, url, is_expected=self._is_expected())
            # The token may be mended meanwhile.
            self._rest = self._rest if not self._settings.token_file else None
        finally:
            self._refreshed_at = self._clock.monotonic()

    def _is_expected(self) -> bool:
        """Whether it was ever there, or the user says that it is to be."""
        is_installed = self._home is not None and statuses.is_installed(self._home)
        return is_installed or self._was_heard or bool(self._settings.url)

    def _server(self) -> Rest:
        """Raises ``AccessProblem``."""
        if self._rest is None:
            self._rest = Rest(endpoint_of(self._settings, self._environment))
        return self._rest

    def _note(self, listing: Listing) -> None:
        """What every list says, be it for a request, a load or a refresh."""
        self._listing, self._api, self._was_heard = listing, listing.api, True
        told = [instance.slots_count for instance in listing.instances() if instance.slots_count]
        self._slots_count = min(told, default=self._slots_count)
        self._status = statuses.ready(listing.api, self._server().endpoint.url)

    async def _describe(self, listing: Listing) -> None:
        """Makes the entries; the files are looked at when other models are listed than before."""
        models = tuple(listing.models.values())
        identity = tuple(replace(model, instances=()) for model in models)
        if identity == self._described:
            return
        endpoint = self._server().endpoint
        here = is_here(endpoint)
        found = await asyncio.to_thread(self._files.find, models) if here else {}
        self._entries = tuple(
            entry_of(model, found.get(model.key), url=endpoint.url, is_here=here) for model in models
        )
        self._described = identity

    async def _load(self, entry: ModelEntry, facts: ModelFacts, shape: LoadShape) -> LmstudioModel:
        try:
            rest = self._server()
            use = await self._instances.acquire(
                rest, entry.id, shape, ttl_seconds=ttl_seconds(self._keep_alive_seconds)
            )
        except (AccessProblem, ServerProblem) as error:
            failure = EngineUnreachable(
                f'LM Studio cannot load "{entry.id}": {error}; try again when that is mended.', model=entry.id
            )
            failure.served = False
            raise failure from error
        return self._incarnation(entry, facts, shape, use, rest)

    def _incarnation(
        self, entry: ModelEntry, facts: ModelFacts, shape: LoadShape, use: Use, rest: Rest
    ) -> LmstudioModel:
        incarnation_id = f"{NAME}-{uuid.uuid4().hex}"
        applied = applied_shape(shape, use.instance)
        return LmstudioModel(
            incarnation_id=incarnation_id,
            shape=applied,
            footprint=Footprint(
                weights_bytes=facts.weights_bytes,
                repacked_weights_bytes=0,
                kv_cache_bytes=0,
                compute_bytes=0,
                process_bytes=0,
            ),
            addressee=Addressee(
                instance_id=use.instance.id,
                api=self._api,
                sees="image" in facts.modalities,
                thinks=facts.thinks,
            ),
            use=use,
            instances=self._instances,
            rest=rest,
            requests=InstanceRequests(
                rest=rest,
                instances=self._instances,
                use=use,
                model_id=entry.id,
                incarnation_id=incarnation_id,
                context_tokens=applied.context_tokens,
                silence_seconds=self._settings.silence_timeout_seconds,
            ),
        )


async def _abandon(load: asyncio.Task[LmstudioModel]) -> None:
    """Unloads what a load that was cancelled comes to."""
    try:
        model = await load
    except AutotuneError as error:
        _log.info("a load that was given up failed", extra=fields(reason=error.reason))
        return
    await model.unload()
