"""The models of the machine: which there are, and the actor of each that was ever asked for.

Called by ``rpc.models`` and ``services.inference``. Invariant: one actor per model and engine for the
life of the daemon; whoever asks without wanting a load changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotuned.core.chat import ProfileName
from autotuned.core.engine import Capabilities
from autotuned.core.errors import AutotuneError, EngineUnreachable, ModelInvalid, ShuttingDown
from autotuned.core.memory import SwapPolicy
from autotuned.core.model import ModelEntry, ModelFacts, ModelState, RunningModel
from autotuned.core.plan import Fit, LoadShape, Need, Plan, Reason
from autotuned.core.ports import Clock, Engine, Machine
from autotuned.core.settings import ModelSettings
from autotuned.policy.catalogue import CatalogueModel
from autotuned.policy.knobs import engine_defaults
from autotuned.policy.profiles import PROFILES, reply_room
from autotuned.policy.routing import AUTO, Candidate, route
from autotuned.policy.situation import ShapeDefaults
from autotuned.services.askers import OnProgress
from autotuned.services.catalogue import Catalogue
from autotuned.services.incarnations import KvKeeper
from autotuned.services.learning import Learning
from autotuned.services.lease import Lease
from autotuned.services.model_actor import ModelActor
from autotuned.services.planner import LocalPlanner, Planner, RemotePlanner
from autotuned.services.residency import Residency

Refusal = Callable[[ModelEntry, Capabilities], str]
"""Why an engine cannot do what a request asks of a model; "" where it can."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A model with where it would run now, and its state on each of its engines."""

    model: CatalogueModel
    entry: ModelEntry
    states: tuple[ModelState, ...]

    @property
    def state(self) -> ModelState:
        """Its state where it would run."""
        return self.states[self.model.entries.index(self.entry)]


@dataclass(frozen=True, slots=True)
class Routed:
    """The actor that takes a request, what its model is called, and why it is this engine's."""

    actor: ModelActor
    name: str
    reasons: tuple[Reason, ...] = ()


class Models:
    """Resolves model ids and hands out leases. ``defaults`` are the parts of a shape that are configured.

    ``swap_policy`` is for who does not say; ``keeper`` saves the KV state of what leaves; ``prefer`` is the
    engine that is taken where several could, or "auto".
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        settings: ModelSettings,
        defaults: ShapeDefaults,
        swap_policy: SwapPolicy,
        machine: Machine,
        residency: Residency,
        learning: Learning,
        keeper: KvKeeper,
        clock: Clock,
        prefer: str = AUTO,
    ) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._defaults = defaults
        self.swap_policy = swap_policy
        self._machine = machine
        self._residency = residency
        self._learning = learning
        self._keeper = keeper
        self._clock = clock
        self.prefer = prefer
        self._actors: dict[str, ModelActor] = {}
        # What the engine could do when the actor's planner was made.
        self._planned_for: dict[str, Capabilities] = {}
        self._stopping = False

    @property
    def default_model(self) -> str:
        """Id of the model that a request without one gets."""
        return self._settings.default

    @property
    def engines(self) -> Sequence[Engine]:
        """The engines, in the order of preference."""
        return self._catalogue.engines

    def engine_of(self, entry: ModelEntry) -> Engine:
        """The engine that runs a model."""
        return self._catalogue.engine(entry.engine)

    async def listings(self) -> list[Listing]:
        """Every model, by id."""
        return [self._listing(model, "") for model in await self._catalogue.models()]

    async def get(self, model_id: str, engine: str = "") -> Listing:
        """One model, sound or not. Raises ModelNotFound, FieldInvalid, EngineUnreachable."""
        model, asked = await self._catalogue.find(model_id or self._settings.default, engine)
        return self._listing(model, asked)

    async def actor(self, model_id: str, engine: str = "") -> ModelActor:
        """The actor of a model that can be used, whatever is asked of it. Raises like ``routed``."""
        return (await self.routed(model_id, engine)).actor

    async def routed(self, model_id: str, engine: str = "", refusal: Refusal | None = None) -> Routed:
        """The actor that takes a request. A model in memory is found without a look at disk or network.

        Raises ModelNotFound, ModelInvalid, FieldInvalid, EngineUnreachable or ShuttingDown.
        """
        self._refuse_when_stopping()
        wanted = model_id or self._settings.default
        known = self._loaded(wanted, engine, refusal)
        if known is not None:
            return known
        model, asked = await self._catalogue.find(wanted, engine)
        self._refuse_when_stopping()
        entries = [entry for entry in model.entries if not asked or entry.engine == asked]
        if all(entry.facts is None for entry in entries):
            entry = entries[0]
            raise ModelInvalid(
                f'"{entry.id}" cannot be used: {entry.problem}', model=entry.id, path=entry.path
            )
        return self._routed(model, asked, refusal)

    async def keys_of(self, name: str) -> tuple[str, ...]:
        """The keys of what a name leads to, one an engine; none where there is no such model any more."""
        try:
            model, asked = await self._catalogue.find(name)
        except AutotuneError:
            return ()
        return tuple(entry.key for entry in model.entries if not asked or entry.engine == asked)

    async def plan(self, routed: Routed, need: Need) -> tuple[Listing, Plan, LoadShape | None]:
        """What would be decided for this need now, and the shape that is loaded, if any.

        Raises ContextTooLong, FieldInvalid, WouldSwap or ShuttingDown.
        """
        actor = routed.actor
        await self._residency.refresh()
        loaded = actor.residence.loaded.shape if actor.residence else None
        plan = actor.plan(need, loaded)
        model, _ = await self._catalogue.find(actor.entry.id, actor.entry.engine)
        listing = self._listing(model, actor.entry.engine)
        return listing, plan.with_reasons_before(routed.reasons), loaded

    def fit_of(self, entry: ModelEntry) -> Fit | None:
        """How a first message would fit by the latest reading; None for an unsound file, or one elsewhere."""
        if entry.facts is None:
            return None
        actor = self._actors.get(entry.key)
        residence = actor.residence if actor else None
        return self._planner_of(entry, entry.facts).fit(residence.loaded.shape if residence else None)

    async def load(  # noqa: PLR0917 - the fields of the request that it serves
        self,
        model_id: str,
        profile: ProfileName | None,
        context_tokens: int | None,
        swap_policy: SwapPolicy | None,
        keep_alive_seconds: float | None,
        on_progress: OnProgress,
        engine: str = "",
    ) -> Lease:
        """Loads a model for a first message of the profile, or with at least this context."""
        routed = await self.routed(model_id, engine)
        chosen = profile or self._settings.profile
        need = Need(
            prompt_tokens=0,
            prompt_is_exact=False,
            reply_tokens=reply_room(None, PROFILES[chosen]),
            context_tokens=context_tokens,
            profile=chosen,
            swap_policy=swap_policy or self.swap_policy,
        )
        lease = await routed.actor.acquire(need, on_progress, keep_alive_seconds)
        lease.plan = lease.plan.with_reasons_before(routed.reasons)
        return lease

    async def unload(self, model_id: str, engine: str = "") -> tuple[bool, int]:
        """Unloads a model wherever it is in memory, or from one engine.

        Returns whether it was loaded, and the resident bytes that its processes had. What a server has
        loaded for somebody else leaves, too. Raises EngineUnreachable where a server that may have it cannot
        be told, and nothing else was unloaded.
        """
        wanted = self._catalogue.known(model_id)
        if wanted is None or engine:
            wanted, engine = await self._catalogue.find(model_id, engine)
        freed_bytes, was_loaded = 0, False
        failure: EngineUnreachable | None = None
        for entry in wanted.entries:
            if engine and entry.engine != engine:
                continue
            actor = self._actors.get(entry.key)
            if actor is not None and actor.state is not ModelState.ABSENT:
                freed_bytes += self._resident_bytes(actor)
                was_loaded = await actor.unload() or was_loaded
                continue
            try:
                was_loaded = await self.engine_of(entry).unload_resident(entry.id) or was_loaded
            except EngineUnreachable as error:
                failure = error
        if failure is not None and not was_loaded:
            raise failure
        return was_loaded, freed_bytes

    def running(self) -> list[ModelActor]:
        """The models in memory or on their way into it, by id."""
        out = {ModelState.ABSENT, ModelState.FAILED}
        return [actor for _, actor in sorted(self._actors.items()) if actor.state not in out]

    def describe(self, actor: ModelActor, queued_requests_count: int) -> RunningModel:
        """One model as it stands now; who waits for a turn is the caller's knowledge."""
        residence = actor.residence
        return RunningModel(
            id=self._catalogue.name_of(actor.entry),
            engine=actor.entry.engine,
            state=actor.state,
            incarnation_id=residence.loaded.incarnation_id if residence else "",
            shape=residence.loaded.shape if residence else None,
            footprint=residence.loaded.footprint if residence else None,
            expires_at=actor.expires_at,
            resident_memory_bytes=self._resident_bytes(actor),
            process_id=residence.loaded.process_id if residence else 0,
            loaded_at=residence.loaded_at if residence else 0.0,
            last_used_at=actor.last_used_at,
            load_seconds=residence.load_seconds if residence else 0.0,
            active_requests_count=actor.leases_count,
            queued_requests_count=queued_requests_count + actor.waiting_count,
            reasons=residence.plan.reasons if residence else (),
        )

    def refuse_new_work(self) -> None:
        """The daemon stops: no model is handed out any more."""
        self._stopping = True

    async def close(self) -> None:
        """Unloads everything and refuses what comes after."""
        self.refuse_new_work()
        await asyncio.gather(*(actor.close() for actor in self._actors.values()))

    def _listing(self, model: CatalogueModel, engine: str) -> Listing:
        """``engine`` "" is the one that would be taken."""
        entries = [entry for entry in model.entries if not engine or entry.engine == engine]
        sound = [entry for entry in entries if entry.facts is not None]
        chosen = route(self._candidates(sound, None), engine=engine, prefer=self.prefer) if sound else None
        return Listing(
            model,
            chosen.candidate.entry if chosen else entries[0],
            tuple(self._state_of(entry) for entry in model.entries),
        )

    def _loaded(self, wanted: str, engine: str, refusal: Refusal | None) -> Routed | None:
        """The actor of a model in memory that can do what is asked; None has it looked for."""
        name, asked = self._catalogue.split(wanted, engine)
        model = self._catalogue.known(wanted) or self._catalogue.known(name, asked)
        if model is None:
            return None
        if model.id == wanted and not engine:
            asked = ""  # "lab/x" may be the id of a model where "lab" is an engine, too
        for entry in model.entries:
            actor = self._actors.get(entry.key)
            if actor is None or actor.residence is None or (asked and entry.engine != asked):
                continue
            if len(model.entries) == 1:
                return Routed(actor, model.id)
            if refusal and not asked and refusal(entry, self.engine_of(entry).capabilities()):
                continue
            return self._routed(model, asked, refusal)
        return None

    def _routed(self, model: CatalogueModel, asked: str, refusal: Refusal | None) -> Routed:
        sound = [entry for entry in model.entries if entry.facts is not None]
        chosen = route(self._candidates(sound, refusal), engine=asked, prefer=self.prefer)
        entry = chosen.candidate.entry
        assert entry.facts is not None  # noqa: S101 - only sound entries are candidates
        return Routed(self._actor_of(entry, entry.facts), model.id, chosen.reasons)

    def _candidates(self, entries: Sequence[ModelEntry], refusal: Refusal | None) -> list[Candidate]:
        candidates = []
        for entry in entries:
            engine, actor = self.engine_of(entry), self._actors.get(entry.key)
            capabilities = engine.capabilities()
            candidates.append(
                Candidate(
                    entry=entry,
                    status=engine.status(),
                    is_local=capabilities.is_local,
                    is_loaded=actor is not None and actor.residence is not None,
                    refusal=refusal(entry, capabilities) if refusal else "",
                )
            )
        return candidates

    def _actor_of(self, entry: ModelEntry, facts: ModelFacts) -> ModelActor:
        actor, capabilities = self._actors.get(entry.key), self.engine_of(entry).capabilities()
        if actor is None:
            actor = ModelActor(
                entry=entry,
                engine=self.engine_of(entry),
                planner=self._planner_of(entry, facts),
                residency=self._residency,
                keeper=self._keeper,
                clock=self._clock,
                keep_alive_seconds=self._settings.keep_alive_seconds,
            )
            self._actors[entry.key] = actor
        else:
            # The file may be replaced, or the engine by a build that can do something else.
            is_new = actor.entry != entry or self._planned_for[entry.key] != capabilities
            if not is_new or not actor.refresh(entry, self._planner_of(entry, facts)):
                return actor
        self._planned_for[entry.key] = capabilities
        return actor

    def _planner_of(self, entry: ModelEntry, facts: ModelFacts) -> Planner:
        engine = self.engine_of(entry)
        capabilities = engine.capabilities()
        if not capabilities.is_local:
            return RemotePlanner(facts=facts, engine=engine)
        return LocalPlanner(
            model_id=entry.key,
            learned_as=entry.learned_as,
            facts=facts,
            defaults=engine_defaults(self._defaults, capabilities),
            learning=self._learning,
            residency=self._residency,
        )

    def _resident_bytes(self, actor: ModelActor) -> int:
        residence = actor.residence
        return self._machine.process_memory(residence.loaded.process_id).resident_bytes if residence else 0

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise ShuttingDown

    def _state_of(self, entry: ModelEntry) -> ModelState:
        actor = self._actors.get(entry.key)
        return actor.state if actor else ModelState.ABSENT
