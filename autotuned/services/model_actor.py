"""One model's place in memory: absent, loading, ready, draining or failed; and who may use it.

``services.models`` owns one actor per model; ``services.inference`` acquires leases from it.
All state changes happen in ``_advance``, on the event loop, without an await between reading the
state and changing it: the owner of the state decides, callers only ask.

Invariants: a lease always names a loaded model whose shape holds what was asked for, beside all other
leases; loads are single-flight; nothing is unloaded or reloaded while a lease on it is held; requests
are served in the order in which they asked; a load outlives the cancel of whoever asked for it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from autotuned.core.errors import AutotuneError, ShuttingDown, WouldSwap
from autotuned.core.memory import PressureTier
from autotuned.core.model import CacheLayout, LoadPhase, LoadProgress, ModelEntry, ModelState
from autotuned.core.plan import LoadShape, Need, Plan, PlanAction
from autotuned.core.ports import Clock, Engine
from autotuned.log import fields
from autotuned.services.askers import Acquisition, Askers, OnProgress, Unloading, told_plan, with_shrink
from autotuned.services.changes import Change, Changes
from autotuned.services.expiry import Expiry
from autotuned.services.incarnations import Incarnations, KvKeeper
from autotuned.services.lease import Choice, Lease, Leases, Residence, needed_tokens
from autotuned.services.planner import Planner
from autotuned.services.residency import Residency

_log = logging.getLogger(__name__)


class ModelActor:
    """Owns one model. ``planner`` decides shapes; ``keep_alive_seconds`` is the configured time."""

    def __init__(
        self,
        *,
        entry: ModelEntry,
        engine: Engine,
        planner: Planner,
        residency: Residency,
        keeper: KvKeeper,
        clock: Clock,
        keep_alive_seconds: float,
    ) -> None:
        self._planner = planner
        self._residency = residency
        self._clock = clock
        self._expiry = Expiry(clock=clock, configured_seconds=keep_alive_seconds, on_expired=self._expire)
        self._incarnations = Incarnations(
            entry=entry, engine=engine, keeper=keeper, clock=clock, on_lost=self._lost
        )
        self._changes = Changes(
            model_id=entry.key, clock=clock, on_failed=self._load_failed, on_ended=self._advance
        )
        self._askers = Askers()
        self._leases = Leases(on_returned=self._returned)
        self._failed = False
        self._closed = False
        self._progress = LoadProgress(LoadPhase.STARTING, 0.0)
        self._shrank = False  # since the latest use
        residency.register(self)

    def refresh(self, entry: ModelEntry, planner: Planner) -> bool:
        """Takes newer facts of file and engine; False where something is loaded by the older ones."""
        if self.residence is not None or self._changes.under_way:
            return False
        self._incarnations.entry = entry
        self._planner = planner
        return True

    @property
    def entry(self) -> ModelEntry:
        """The model."""
        return self._incarnations.entry

    @property
    def model_id(self) -> str:
        """Its name among the models of all engines."""
        return self.entry.key

    @property
    def residence(self) -> Residence | None:
        """The loaded model, or None."""
        return self._incarnations.current

    @property
    def takes_cache_later(self) -> bool:
        """Whether its engine takes the memory of the KV cache as the context fills, not at the load."""
        facts = self.entry.facts
        return facts is not None and facts.cache_layout is CacheLayout.MLX

    @property
    def leases_count(self) -> int:
        """Leases that are held."""
        return len(self._leases)

    @property
    def waiting_count(self) -> int:
        """Requests that wait for a lease."""
        return self._askers.waiting_count

    @property
    def is_busy(self) -> bool:
        """Whether it is used, asked for or changing."""
        return bool(self._leases or self._askers or self._changes.under_way or self._closed)

    @property
    def last_used_at(self) -> float:
        """When it was last leased or given back, in seconds since the epoch; 0 where never."""
        return self._expiry.used_at

    @property
    def expires_at(self) -> float:
        """When it leaves if nobody uses it from now on; 0: it stays until its memory is needed."""
        return self._expiry.expires_at(is_busy=self.is_busy) if self.residence else 0.0

    @property
    def state(self) -> ModelState:
        """Where the model is in its life."""
        if self.residence is None:
            if self._changes.under_way:
                return ModelState.LOADING
            return ModelState.FAILED if self._failed else ModelState.ABSENT
        if self._changes.under_way or (self._askers and self._leases):
            return ModelState.DRAINING
        return ModelState.READY

    def plan(self, need: Need, loaded: LoadShape | None) -> Plan:
        """What would be decided for this need by the latest reading, given this loaded shape."""
        return with_shrink(self.residence, self._planner.plan(need, loaded))

    async def acquire(
        self, need: Need, on_progress: OnProgress, keep_alive_seconds: float | None = None
    ) -> Lease:
        """Waits until the model is loaded in a shape that holds ``need``, and leases it.

        ``keep_alive_seconds`` is how long it stays unused, until another request says otherwise; None
        changes nothing. Raises ContextTooLong, FieldInvalid, WouldSwap, ModelInvalid, ModelLoadFailed,
        ShuttingDown. Cancelling it leaves a load that it began to finish.
        """
        if self._closed:
            raise ShuttingDown
        asking = Acquisition(
            need=need,
            on_progress=on_progress,
            keep_alive_seconds=keep_alive_seconds,
            asked_at=self._clock.monotonic(),
            changed_seconds=self._changes.seconds(),
        )
        self._askers.append(asking)
        self._advance()
        if self.residence is None and not asking.granted.done():
            on_progress(self._progress)
        try:
            return await asking.granted
        except asyncio.CancelledError:
            self._withdraw(asking)
            raise

    def lease_now(self) -> Lease | None:
        """Leases the model as it is, without waiting; None when it is not loaded, or about to change."""
        residence = self.residence
        if residence is None or residence.loaded.is_gone or self._askers or self._changes.under_way:
            return None
        return None if self._closed else self._lease(residence, residence.plan)

    async def unload(self) -> bool:
        """Unloads the model once all that asked before have been served; False if it was not loaded.

        Raises ShuttingDown.
        """
        if self._closed:
            raise ShuttingDown
        if self.residence is None and not self._changes.under_way and not self._askers:
            return False
        asking = Unloading()
        self._askers.append(asking)
        self._advance()
        try:
            return await asyncio.shield(asking.done)
        except asyncio.CancelledError:
            if asking in self._askers:
                self._askers.remove(asking)
                self._advance()
            raise

    async def settle(self) -> None:
        """Waits for the end of an unload that is under way."""
        await self._changes.unloaded()

    async def leave(self, cause: str) -> bool:
        """Unloads the model if nobody uses it; False where somebody does."""
        if self.residence is None or self.is_busy:
            return False
        _log.info("leaves memory", extra=fields(model=self.model_id, cause=cause))
        await asyncio.wait([self._begin_unload(self.residence)])
        return True

    def shrink(self) -> None:
        """Begins to load the model in a smaller shape, if nobody uses it and the pressure asks for it."""
        residence = self.residence
        if residence is None or residence.loaded.is_gone or self.is_busy or self._shrank:
            return
        plan = self._planner.shrink(residence.loaded.shape, self._leases.latest_tokens(residence.loaded))
        if plan is not None:
            self._shrank = True  # once: where it fails or does not suffice, trying again would not help
            self._begin(partial(self._shrink, Choice(need=residence.need, plan=plan)))

    async def close(self) -> None:
        """Refuses all who wait, stops a load under way, saves and unloads, leases or not."""
        self._closed = True
        self._expiry.stop()
        self._askers.dismiss()
        await self._changes.cancel()
        await self._incarnations.close()

    def _returned(self) -> None:
        self._expiry.used()
        self._advance()

    def _lease(self, residence: Residence, plan: Plan, asked: Acquisition | None = None) -> Lease:
        lease = Lease(
            model_id=self.model_id,
            residence=residence,
            plan=plan,
            reserved_tokens=needed_tokens(asked.need) if asked else 0,
            waited_seconds=self._clock.monotonic() - asked.asked_at if asked else 0.0,
            load_seconds=self._changes.seconds() - asked.changed_seconds if asked else 0.0,
            leases=self._leases,
        )
        self._leases.add(lease)
        self._shrank = False
        self._expiry.stop()
        self._expiry.used()
        if asked and asked.keep_alive_seconds is not None:
            self._expiry.keep_alive_seconds = asked.keep_alive_seconds
        return lease

    def _withdraw(self, asking: Acquisition) -> None:
        granted = asking.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            granted.result().release()  # granted in the very moment of the cancel
        elif asking in self._askers:
            self._askers.remove(asking)
            self._advance()

    def _lost(self) -> None:
        """The incarnation died: whoever waits is served by another one."""
        self._leases.clear()
        self._advance()

    def _advance(self) -> None:
        """Serves who asks, in order, until something has to be waited for."""
        while not self._changes.under_way and not self._closed:
            head = self._askers.first()
            if head is None:
                self._rest()
                return
            if not (self._give_unload(head) if isinstance(head, Unloading) else self._give_lease(head)):
                return

    def _rest(self) -> None:
        """Nobody asks: an unused model shrinks where memory is short, or stays for as long as it may."""
        if self.residence is None or self._leases:
            return
        self._expiry.start()
        if self._residency.pressure is PressureTier.CRITICAL:
            self.shrink()

    def _expire(self) -> None:
        if self.residence is not None and not self.is_busy:
            _log.info("leaves memory", extra=fields(model=self.model_id, cause="its keep-alive is over"))
            self._begin_unload(self.residence)

    def _give_unload(self, head: Unloading) -> bool:
        """Returns whether the next one can be looked at."""
        if self.residence is None:
            self._askers.remove(head)
            head.done.set_result(False)
            return True
        if not self._leases:
            self._begin_unload(self.residence, head)
        return False

    def _give_lease(self, head: Acquisition) -> bool:
        """Returns whether the next one can be looked at."""
        residence = self.residence
        if residence is not None and residence.loaded.is_gone:
            return False  # the watch is about to learn of it
        plan: Plan | None = None
        try:
            plan = self._planner.plan(head.need, residence.loaded.shape if residence else None)
        except WouldSwap:
            pass  # by the latest reading; a fresh one decides
        except AutotuneError as error:
            self._askers.refuse(head, error)
            return True
        if residence is not None and plan is not None and plan.action is PlanAction.REUSE:
            if not self._leases.leave_room(residence.loaded.shape, head.need):
                return False
            self._askers.remove(head)
            head.granted.set_result(self._lease(residence, told_plan(residence, plan, head), head))
            return True
        if not self._leases:
            pause_seconds = 0.0 if residence else self._incarnations.pause_seconds()
            phase = LoadPhase.WAITING if pause_seconds else LoadPhase.STARTING
            self._begin(partial(self._change, pause_seconds), phase)
        return False

    def _choose(self) -> Choice | None:
        """The final plan for who asks first, wide enough for all who wait; refuses who cannot be served.

        None where nobody is left who needs a load.
        """
        shape = self.residence.loaded.shape if self.residence else None
        chosen: Choice | None = None
        for asking in self._askers.waiting():
            try:
                plan = self._planner.plan(asking.need, shape)
            except AutotuneError as error:
                if chosen is None:  # the others are asked again when it is their turn
                    self._askers.refuse(asking, error)
                continue
            if chosen is None and plan.action is PlanAction.REUSE:
                return None
            if chosen is None or plan.shape.context_tokens > chosen.plan.shape.context_tokens:
                chosen = Choice(need=asking.need, plan=plan)
        return chosen

    def _begin(self, change: Change, phase: LoadPhase = LoadPhase.STARTING) -> None:
        self._expiry.stop()
        self._progress = LoadProgress(phase, 0.0)
        self._changes.begin(change)

    def _begin_unload(self, residence: Residence, asked: Unloading | None = None) -> asyncio.Task[None]:
        self._expiry.forget()
        self._progress = LoadProgress(LoadPhase.STARTING, 0.0)
        return self._changes.begin_unload(partial(self._unload, residence, asked))

    async def _unload(self, residence: Residence, asked: Unloading | None) -> None:
        await self._incarnations.end(residence)
        if asked is not None:
            if asked in self._askers:
                self._askers.remove(asked)
            if not asked.done.done():
                asked.done.set_result(True)

    async def _change(self, pause_seconds: float) -> None:
        """Loads or grows, after a pause where incarnation after incarnation crashed."""
        await self._incarnations.pause(pause_seconds, self._tell_progress)
        async with self._residency.room(self.model_id, self._choose) as choice:
            if choice is not None:
                await self._place(choice)
                self._expiry.used()

    async def _shrink(self, choice: Choice) -> None:
        _log.info(
            "shrinks",
            extra=fields(model=self.model_id, context_tokens=choice.plan.shape.context_tokens),
        )
        with self._residency.reserve(self.model_id, choice.plan.footprint.total_bytes):
            if self.residence is not None:
                await self._place(choice)
        await self._residency.refresh()

    async def _place(self, choice: Choice) -> None:
        failed = await self._incarnations.place(choice, self._tell_progress)
        self._failed = False
        if self.residence is not None:
            self._planner.loaded(self.residence.loaded)
        if failed is not None:
            self._load_failed(failed)

    def _load_failed(self, error: AutotuneError) -> None:
        """Everyone who waits for it now learns of it; whoever asks later causes a new attempt."""
        self._failed = self.residence is None
        _log.error(
            "load failed", extra=fields(model=self.model_id, reason=error.reason, message_text=error.message)
        )
        for asking in self._askers.waiting():
            if not self._holds(asking.need):
                self._askers.refuse(asking, error)

    def _holds(self, need: Need) -> bool:
        if self.residence is None:
            return False
        try:
            return self._planner.plan(need, self.residence.loaded.shape).action is PlanAction.REUSE
        except AutotuneError:
            return False

    def _tell_progress(self, progress: LoadProgress) -> None:
        self._progress = progress
        self._askers.tell(progress)
