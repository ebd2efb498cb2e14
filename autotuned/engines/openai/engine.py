"""The engine of one name: its servers, what they list, and models that are served by any of them.

``daemon`` makes one for each name in ``openai.upstreams``; ``services`` use it through the port
``Engine``. Invariants: nothing is started and nothing is loaded here; what is listed was listed by a
server that is there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches

from autotuned.core.download import Downloaded, DownloadProgress
from autotuned.core.engine import Capabilities, EngineResident, EngineState, EngineStatus
from autotuned.core.errors import EngineUnreachable, ModelInvalid, ModelNotFound, ShuttingDown, Unsupported
from autotuned.core.model import LoadPhase, LoadProgress, ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Clock
from autotuned.core.settings import OpenaiSettings
from autotuned.core.upstream import parse_upstream
from autotuned.engines.openai.kinds import capabilities_of
from autotuned.engines.openai.listing import Listed
from autotuned.engines.openai.model import OpenaiModel
from autotuned.engines.openai.requests import UpstreamRequests
from autotuned.engines.openai.server import Server

# What is known of the servers counts for so long.
FRESH_SECONDS = 5.0
# A model that nobody has listed for so long is gone.
GONE_SECONDS = 60.0

_KNOWN_PARTS = frozenset({"context_tokens", "slots_count", "assumed"})


def openai_engines(
    settings: OpenaiSettings, *, environment: Mapping[str, str], clock: Clock
) -> tuple[OpenaiEngine, ...]:
    """An engine for each name, in the order of the entries. Raises ``ValueError`` for a bad entry."""
    by_name: dict[str, list[Server]] = {}
    for entry in settings.upstreams:
        upstream = parse_upstream(entry)
        server = Server(upstream, environment=environment, clock=clock)
        by_name.setdefault(upstream.name, []).append(server)
    return tuple(
        OpenaiEngine(
            name=name, servers=servers, silence_seconds=settings.silence_timeout_seconds, clock=clock
        )
        for name, servers in by_name.items()
    )


class OpenaiEngine:
    """Servers that are equals."""

    def __init__(self, *, name: str, servers: Sequence[Server], silence_seconds: float, clock: Clock) -> None:
        self._name = name
        self._servers = tuple(servers)
        self._silence_seconds = silence_seconds
        self._clock = clock
        self._looked_at: float | None = None
        self._look: asyncio.Task[None] | None = None
        self._listed_at: dict[str, float] = {}
        self._loaded: set[OpenaiModel] = set()
        self._is_closed = False

    @property
    def name(self) -> str:
        """The name that the entries give."""
        return self._name

    @property
    def version(self) -> str:
        """The programs that serve, as far as they tell."""
        return ", ".join(sorted({server.version for server in self._servers if server.version}))

    def capabilities(self) -> Capabilities:
        """What all servers that are there can do; all of them where none is."""
        there = [server for server in self._servers if server.is_up] or self._servers
        return capabilities_of([server.ability for server in there])

    def status(self) -> EngineStatus:
        """Ready where one server is."""
        ready = any(server.is_up for server in self._servers)
        starting = any(server.is_starting for server in self._servers)
        problems = [f"{server.url}: {server.problem}" for server in self._servers if not server.is_up]
        waiting = EngineState.STARTING if starting else EngineState.UNREACHABLE
        return EngineStatus(
            name=self._name,
            state=EngineState.READY if ready else waiting,
            version=self.version,
            address=", ".join(server.url for server in self._servers),
            detail="" if ready else "; ".join(problems),
            server_settings=tuple(
                (f"slots of {server.url}", str(server.ability.slots_count)) for server in self._servers
            ),
            findings=tuple(finding for server in self._servers for finding in server.findings()),
        )

    async def refresh(self) -> None:
        """Looks at every server that does not rest. Callers at the same time share one look."""
        if self._is_closed:
            return
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(self._look_at_all())
        await asyncio.shield(self._look)

    async def models(self) -> Sequence[ModelEntry]:
        """What the servers that are there list, in the order in which they list it."""
        await self._refresh_if_stale()
        return [self._entry(model_id) for model_id in self._union()]

    async def residents(self) -> Sequence[EngineResident]:
        """None: what servers have in memory is not ours to plan."""
        return ()

    async def unload_resident(self, model_id: str) -> bool:
        """Never: what a server elsewhere holds is its own business."""
        _ = model_id
        return False

    async def load(
        self, entry: ModelEntry, shape: LoadShape, on_progress: Callable[[LoadProgress], None]
    ) -> OpenaiModel:
        """See ``Engine.load``: looks whether a server lists the model. Raises ``ModelNotFound``, too."""
        if self._is_closed:
            raise ShuttingDown
        if entry.facts is None:
            raise ModelInvalid(entry.problem, model=entry.id)
        began_at = self._clock.monotonic()
        on_progress(LoadProgress(LoadPhase.STARTING, 0.0))
        await self._refresh_if_stale()
        if entry.id not in self._union():
            await self.refresh()
            self._check_listed(entry.id)
        model = OpenaiModel(
            incarnation_id=f"{self._name}-{uuid.uuid4().hex}",
            model_id=entry.id,
            shape=self._applied(entry.id, shape),
            requests=UpstreamRequests(
                engine=self._name,
                servers=self._servers,
                model_id=entry.id,
                silence_seconds=self._silence_seconds,
            ),
        )
        self._loaded = {each for each in self._loaded if not each.is_gone} | {model}
        on_progress(LoadProgress(LoadPhase.READY, self._clock.monotonic() - began_at))
        return model

    async def pull(self, name: str, on_progress: Callable[[DownloadProgress], None]) -> Downloaded:
        """Never: OpenAI's dialect has no word for it."""
        _ = on_progress
        raise Unsupported(
            f'The servers of "{self._name}" cannot be told to download "{name}"; do it where they run.'
        )

    async def delete(self, entry: ModelEntry) -> int:
        """Never: the models are of whoever runs the servers."""
        raise Unsupported(f'"{entry.id}" lies with the servers of "{self._name}"; delete it where they run.')

    async def close(self) -> None:
        """Ends what runs and closes what is kept open."""
        self._is_closed = True
        if self._look is not None and not self._look.done():
            self._look.cancel()
            await asyncio.wait([self._look])
        for model in self._loaded:
            model.end("the engine was closed")
        for server in self._servers:
            server.close()

    async def _refresh_if_stale(self) -> None:
        if self._looked_at is None or self._clock.monotonic() - self._looked_at > FRESH_SECONDS:
            await self.refresh()

    async def _look_at_all(self) -> None:
        await asyncio.gather(*(server.look() for server in self._servers))
        self._looked_at = now = self._clock.monotonic()
        for model_id in self._union():
            self._listed_at[model_id] = now
        for model in self._loaded:
            if now - self._listed_at.get(model.model_id, now) > GONE_SECONDS:
                model.end("no server has listed it for a while")

    def _union(self) -> dict[str, Listed]:
        """Each model as the first server that lists it knows it, with a context that all of them have."""
        union: dict[str, Listed] = {}
        for server in self._servers:
            for model_id, listed in server.models.items():
                known = union.setdefault(model_id, listed)
                contexts = [each.context_tokens for each in (known, listed) if each.context_tokens]
                union[model_id] = replace(known, context_tokens=min(contexts, default=0))
        return union

    def _entry(self, model_id: str) -> ModelEntry:
        listed = self._union()[model_id]
        url = next(server.url for server in self._servers if model_id in server.models)
        return ModelEntry(
            id=model_id,
            engine=self._name,
            path=url,
            size_bytes=listed.size_bytes,
            facts=listed.facts(self._name),
        )

    def _check_listed(self, model_id: str) -> None:
        union = self._union()
        if model_id in union:
            return
        if any(server.is_up for server in self._servers):
            near = get_close_matches(model_id, union, 1)
            raise ModelNotFound(model_id, near[0] if near else "", advice="its servers list it no more.")
        error = EngineUnreachable(
            f'No server of "{self._name}" is there ({self.status().detail}); start one and try again.',
            model=model_id,
            engine=self._name,
        )
        error.served = False
        raise error

    def _applied(self, model_id: str, shape: LoadShape) -> LoadShape:
        """What the servers tell; the rest stays as it was planned, and is marked as assumed."""
        context_tokens = self._union()[model_id].context_tokens
        having = [server for server in self._servers if model_id in server.models]
        assumed = {field.name for field in fields(shape)} - _KNOWN_PARTS
        if not context_tokens:
            assumed.add("context_tokens")
        return replace(
            shape,
            context_tokens=context_tokens or shape.context_tokens,
            slots_count=sum(server.ability.slots_count for server in having),
            assumed=tuple(sorted(assumed)),
        )
