"""The models of the machine: which there are, and the actor of each that was ever asked for.

Called by ``rpc.models`` and ``services.inference``. Invariant: one actor per model id for the life
of the daemon; whoever asks without wanting a load changes nothing.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from autotuned.core.chat import ProfileName
from autotuned.core.errors import ModelInvalid, ModelNotFound, ShuttingDown
from autotuned.core.memory import SwapPolicy
from autotuned.core.model import ModelEntry, ModelFacts, ModelState, RunningModel
from autotuned.core.plan import Fit, LoadShape, Need, Plan
from autotuned.core.ports import Clock, Engine, Machine
from autotuned.core.settings import ModelSettings
from autotuned.policy.profiles import PROFILES, reply_room
from autotuned.policy.situation import ShapeDefaults
from autotuned.services.askers import OnProgress
from autotuned.services.incarnations import KvKeeper
from autotuned.services.learning import Learning
from autotuned.services.lease import Lease
from autotuned.services.model_actor import ModelActor
from autotuned.services.planner import ModelPlanner
from autotuned.services.residency import Residency


@dataclass(frozen=True, slots=True)
class Listing:
    """A model with its state."""

    entry: ModelEntry
    state: ModelState


class Models:
    """Resolves model ids and hands out leases. ``defaults`` are the parts of a shape that are configured.

    ``swap_policy`` is for who does not say; ``keeper`` saves the KV state of what leaves.
    """

    def __init__(
        self,
        *,
        engines: Sequence[Engine],
        settings: ModelSettings,
        defaults: ShapeDefaults,
        swap_policy: SwapPolicy,
        machine: Machine,
        residency: Residency,
        learning: Learning,
        keeper: KvKeeper,
        clock: Clock,
    ) -> None:
        self._engines = {engine.name: engine for engine in engines}
        self._settings = settings
        self._defaults = defaults
        self.swap_policy = swap_policy
        self._machine = machine
        self._residency = residency
        self._learning = learning
        self._keeper = keeper
        self._clock = clock
        self._actors: dict[str, ModelActor] = {}
        self._stopping = False

    @property
    def default_model(self) -> str:
        """Id of the model that a request without one gets."""
        return self._settings.default

    @property
    def engines(self) -> Sequence[Engine]:
        """The engines, in the order of preference."""
        return tuple(self._engines.values())

    def engine_of(self, entry: ModelEntry) -> Engine:
        """The engine that runs a model."""
        return self._engines[entry.engine]

    async def listings(self) -> list[Listing]:
        """Every model of every engine, by id."""
        entries = await self._entries()
        return [Listing(entries[model_id], self._state_of(model_id)) for model_id in sorted(entries)]

    async def get(self, model_id: str) -> Listing:
        """One model, sound or not. Raises ModelNotFound."""
        wanted = model_id or self._settings.default
        entries = await self._entries()
        if wanted not in entries:
            raise ModelNotFound(wanted, _nearest(wanted, list(entries)))
        return Listing(entries[wanted], self._state_of(wanted))

    async def actor(self, model_id: str) -> ModelActor:
        """The actor of a model that can be used. Raises ModelNotFound, ModelInvalid or ShuttingDown.

        A model in memory is found without a look at the disk.
        """
        self._refuse_when_stopping()
        known = self._actors.get(model_id or self._settings.default)
        if known is not None and known.residence is not None:
            return known
        entry = (await self.get(model_id)).entry
        self._refuse_when_stopping()
        if entry.facts is None:
            raise ModelInvalid(
                f'"{entry.id}" cannot be used: {entry.problem}', model=entry.id, path=entry.path
            )
        return self._actor_of(entry, entry.facts)

    async def plan(self, model_id: str, need: Need) -> tuple[Listing, Plan, LoadShape | None]:
        """What would be decided for this need now, and the shape that is loaded, if any.

        Raises ModelNotFound, ModelInvalid, ContextTooLong, FieldInvalid, WouldSwap or ShuttingDown.
        """
        actor = await self.actor(model_id)
        await self._residency.refresh()
        loaded = actor.residence.loaded.shape if actor.residence else None
        return Listing(actor.entry, actor.state), actor.plan(need, loaded), loaded

    def fit_of(self, entry: ModelEntry) -> Fit | None:
        """How a first message would fit by the latest reading; None for an unsound file."""
        if entry.facts is None:
            return None
        actor = self._actors.get(entry.id)
        residence = actor.residence if actor else None
        planner = self._planner_of(entry.id, entry.facts)
        return planner.fit(residence.loaded.shape if residence else None)

    async def load(  # noqa: PLR0917 - the fields of the request that it serves
        self,
        model_id: str,
        profile: ProfileName | None,
        context_tokens: int | None,
        swap_policy: SwapPolicy | None,
        keep_alive_seconds: float | None,
        on_progress: OnProgress,
    ) -> Lease:
        """Loads a model for a first message of the profile, or with at least this context."""
        actor = await self.actor(model_id)
        chosen = profile or self._settings.profile
        need = Need(
            prompt_tokens=0,
            prompt_is_exact=False,
            reply_tokens=reply_room(None, PROFILES[chosen]),
            context_tokens=context_tokens,
            profile=chosen,
            swap_policy=swap_policy or self.swap_policy,
        )
        return await actor.acquire(need, on_progress, keep_alive_seconds)

    async def unload(self, model_id: str) -> tuple[bool, int]:
        """Unloads a model; returns whether it was loaded and the resident bytes that its process had."""
        actor = self._actors.get(model_id)
        if actor is None:
            await self.get(model_id)
            return False, 0
        freed_bytes = self._resident_bytes(actor)
        return await actor.unload(), freed_bytes

    def running(self) -> list[ModelActor]:
        """The models in memory or on their way into it, by id."""
        out = {ModelState.ABSENT, ModelState.FAILED}
        return [actor for _, actor in sorted(self._actors.items()) if actor.state not in out]

    def describe(self, actor: ModelActor, queued_requests_count: int) -> RunningModel:
        """One model as it stands now; who waits for a turn is the caller's knowledge."""
        residence = actor.residence
        return RunningModel(
            id=actor.entry.id,
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

    async def _entries(self) -> dict[str, ModelEntry]:
        entries: dict[str, ModelEntry] = {}
        for engine in self._engines.values():
            for entry in await engine.models():
                entries.setdefault(entry.id, entry)
        return entries

    def _actor_of(self, entry: ModelEntry, facts: ModelFacts) -> ModelActor:
        actor = self._actors.get(entry.id)
        if actor is None:
            actor = ModelActor(
                entry=entry,
                engine=self.engine_of(entry),
                planner=self._planner_of(entry.id, facts),
                residency=self._residency,
                keeper=self._keeper,
                clock=self._clock,
                keep_alive_seconds=self._settings.keep_alive_seconds,
            )
            self._actors[entry.id] = actor
        elif actor.entry != entry:
            actor.refresh(entry, self._planner_of(entry.id, facts))  # the file was replaced
        return actor

    def _planner_of(self, model_id: str, facts: ModelFacts) -> ModelPlanner:
        return ModelPlanner(
            model_id=model_id,
            facts=facts,
            defaults=self._defaults,
            learning=self._learning,
            residency=self._residency,
        )

    def _resident_bytes(self, actor: ModelActor) -> int:
        residence = actor.residence
        return self._machine.process_memory(residence.loaded.process_id).resident_bytes if residence else 0

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise ShuttingDown

    def _state_of(self, model_id: str) -> ModelState:
        actor = self._actors.get(model_id)
        return actor.state if actor else ModelState.ABSENT


def _nearest(wanted: str, known: list[str]) -> str:
    """The id that was probably meant: alike in spelling, or one that contains what was typed."""
    alike = difflib.get_close_matches(wanted.lower(), [name.lower() for name in known], n=1, cutoff=0.5)
    for name in known:
        if (alike and name.lower() == alike[0]) or (not alike and wanted and wanted.lower() in name.lower()):
            return name
    return known[0] if len(known) == 1 else ""
