"""One model's place in memory: absent, loading, ready, draining or failed.

``services.models`` owns one actor per model; ``services.inference`` acquires leases from it.
All state changes happen in ``_advance``, on the event loop, without an await between reading the
state and changing it: the owner of the state decides, callers only ask.

Invariants: a lease always names a loaded model whose shape holds what was asked for; loads are
single-flight; nothing is unloaded or reloaded while a lease on it is held; requests are served in
the order in which they asked; a load outlives the cancel of whoever asked for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

from autotuned.core.errors import AutotuneError, ModelLoadFailed, ShuttingDown
from autotuned.core.model import LoadPhase, LoadProgress, ModelEntry, ModelState
from autotuned.core.plan import LoadShape, Need, Plan, PlanAction
from autotuned.core.ports import Clock, Engine, LoadedModel
from autotuned.log import fields
from autotuned.policy import restart
from autotuned.services.lease import Lease, Residence

Planner = Callable[[Need, LoadShape | None], Plan]
OnProgress = Callable[[LoadProgress], None]

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Acquisition:
    need: Need
    on_progress: OnProgress
    asked_at: float
    granted: asyncio.Future[Lease]


@dataclass(slots=True, eq=False)
class _Unloading:
    done: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ModelActor:
    """Owns one model. ``planner`` decides shapes; it raises ContextTooLong for what cannot fit."""

    def __init__(self, *, entry: ModelEntry, engine: Engine, planner: Planner, clock: Clock) -> None:
        self.entry = entry
        self._engine = engine
        self._planner = planner
        self._clock = clock
        self._residence: Residence | None = None
        self._leases: set[Lease] = set()
        self._asking: deque[_Acquisition | _Unloading] = deque()
        self._transition: asyncio.Task[None] | None = None
        self._watches: dict[LoadedModel, asyncio.Task[None]] = {}  # of every incarnation that lives
        self._failed = False
        self._closed = False
        self._crashes = 0
        self._crashed_at_monotonic = 0.0
        self._progress = LoadProgress(LoadPhase.STARTING, 0.0)
        self.last_used_at = 0.0

    def refresh(self, entry: ModelEntry, planner: Planner) -> None:
        """Takes newer facts of the file; only while nothing is loaded."""
        if self._residence is None and self._transition is None:
            self.entry = entry
            self._planner = planner

    @property
    def residence(self) -> Residence | None:
        """The loaded model, or None."""
        return self._residence

    @property
    def leases_count(self) -> int:
        """Leases that are held."""
        return len(self._leases)

    @property
    def waiting_count(self) -> int:
        """Requests that wait for a lease."""
        return sum(isinstance(asking, _Acquisition) for asking in self._asking)

    @property
    def state(self) -> ModelState:
        """Where the model is in its life."""
        if self._residence is None:
            if self._transition is not None:
                return ModelState.LOADING
            return ModelState.FAILED if self._failed else ModelState.ABSENT
        if self._transition is not None or self._head_waits_for_leases():
            return ModelState.DRAINING
        return ModelState.READY

    def plan(self, need: Need, loaded: LoadShape | None) -> Plan:
        """What would be decided for this need, given this loaded shape."""
        return self._planner(need, loaded)

    async def acquire(self, need: Need, on_progress: OnProgress) -> Lease:
        """Waits until the model is loaded in a shape that holds ``need``, and leases it.

        Raises ContextTooLong, ModelInvalid, ModelLoadFailed, ShuttingDown. Cancelling it leaves a
        load that it began to finish.
        """
        if self._closed:
            raise ShuttingDown
        residence = self._serving()
        if residence is not None:
            plan = self._planner(need, residence.loaded.shape)
            if plan.action is PlanAction.REUSE:
                return self._lease(residence, plan, 0.0)
        acquisition = _Acquisition(
            need, on_progress, self._clock.monotonic(), asyncio.get_running_loop().create_future()
        )
        self._asking.append(acquisition)
        self._advance()
        if self._residence is None and not acquisition.granted.done():
            on_progress(self._progress)
        try:
            return await acquisition.granted
        except asyncio.CancelledError:
            self._withdraw(acquisition)
            raise

    def lease_now(self) -> Lease | None:
        """Leases the model as it is, without waiting; None when it is not loaded, or about to change."""
        residence = None if self._closed else self._serving()
        return self._lease(residence, residence.plan, 0.0) if residence else None

    async def unload(self) -> bool:
        """Unloads the model once all that asked before have been served; False if it was not loaded.

        Raises ShuttingDown.
        """
        if self._closed:
            raise ShuttingDown
        if self._residence is None and self._transition is None and not self._asking:
            return False
        unloading = _Unloading()
        self._asking.append(unloading)
        self._advance()
        try:
            return await asyncio.shield(unloading.done)
        except asyncio.CancelledError:
            if unloading in self._asking:
                self._asking.remove(unloading)
                self._advance()
            raise

    async def close(self) -> None:
        """Refuses all who wait, stops a load under way and unloads, leases or not."""
        self._closed = True
        for asking in self._asking:
            if isinstance(asking, _Acquisition):
                _fail(asking.granted, ShuttingDown())
            elif not asking.done.done():
                asking.done.set_result(True)
        self._asking.clear()
        if self._transition is not None:
            self._transition.cancel()
            await asyncio.wait([self._transition])
        for loaded, watch in tuple(self._watches.items()):
            await loaded.unload()
            await asyncio.wait([watch])

    def _give_back(self, lease: Lease) -> None:
        if lease not in self._leases:
            return
        self._leases.remove(lease)
        self.last_used_at = self._clock.now()
        self._advance()

    def _lose(self, residence: Residence, cause: str) -> None:
        """The incarnation died: forgets it and serves who waits."""
        if self._residence is not residence or self._transition is not None:  # unloaded on purpose
            return
        self._residence = None
        self._leases.clear()
        if self._closed:
            return
        self._crashes = restart.crashes_in_a_row(self._crashes, self._lived_seconds(residence))
        self._crashed_at_monotonic = self._clock.monotonic()
        _log.error(
            "worker is gone",
            extra=fields(model=self.entry.id, incarnation=residence.loaded.incarnation_id, cause=cause),
        )
        self._advance()

    def _serving(self) -> Residence | None:
        """The loaded model, if nobody asked before and nothing is under way."""
        residence = self._residence
        if residence is None or residence.loaded.is_gone or self._transition is not None or self._asking:
            return None
        return residence

    def _head_waits_for_leases(self) -> bool:
        return bool(self._asking) and bool(self._leases)

    def _lease(self, residence: Residence, plan: Plan, waited_seconds: float) -> Lease:
        lease = Lease(
            model_id=self.entry.id,
            residence=residence,
            plan=plan,
            waited_seconds=waited_seconds,
            give_back=self._give_back,
        )
        self._leases.add(lease)
        self.last_used_at = self._clock.now()
        return lease

    def _withdraw(self, acquisition: _Acquisition) -> None:
        granted = acquisition.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            granted.result().release()  # granted in the very moment of the cancel
        elif acquisition in self._asking:
            self._asking.remove(acquisition)
            self._advance()

    def _advance(self) -> None:
        """Serves who asks, in order, until something has to be waited for."""
        while self._asking and self._transition is None and not self._closed:
            head = self._asking[0]
            if isinstance(head, _Acquisition) and head.granted.done():  # cancelled meanwhile
                self._asking.popleft()
            elif isinstance(head, _Unloading):
                if not self._serve_unloading(head):
                    return
            elif not self._serve_acquisition(head):
                return

    def _serve_unloading(self, head: _Unloading) -> bool:
        """Returns whether the next one can be looked at."""
        if self._residence is None:
            self._asking.popleft()
            head.done.set_result(False)
            return True
        if not self._leases:
            self._begin(partial(self._unload, self._residence, head))
        return False

    def _serve_acquisition(self, head: _Acquisition) -> bool:
        """Returns whether the next one can be looked at."""
        residence = self._residence
        if residence is not None and residence.loaded.is_gone:
            return False  # the watch is about to learn of it
        try:
            plan = self._planner(head.need, residence.loaded.shape if residence else None)
        except AutotuneError as error:
            self._asking.popleft()
            _fail(head.granted, error)
            return True
        if residence is None:
            self._begin(partial(self._load, *self._widest(head.need, plan, None)))
            return False
        if plan.action is PlanAction.REUSE:
            self._asking.popleft()
            waited = self._clock.monotonic() - head.asked_at
            head.granted.set_result(self._lease(residence, self._plan_of(residence, plan, head), waited))
            return True
        if not self._leases:
            widest = self._widest(head.need, plan, residence.loaded.shape)
            self._begin(partial(self._reload, residence, *widest))
        return False

    def _plan_of(self, residence: Residence, plan: Plan, head: _Acquisition) -> Plan:
        """Whoever the load was planned for is told that plan; the others, that it holds them, too."""
        waited_for_it = residence.loaded_at_monotonic >= head.asked_at
        return residence.plan if waited_for_it and residence.need == head.need else plan

    def _widest(self, need: Need, plan: Plan, loaded: LoadShape | None) -> tuple[Need, Plan]:
        """Need and plan of whoever among the waiting needs the most, so that one load serves them all."""
        for asking in self._asking:
            if not isinstance(asking, _Acquisition):
                break
            try:
                other = self._planner(asking.need, loaded)
            except AutotuneError:
                continue
            if other.shape.context_tokens > plan.shape.context_tokens:
                need, plan = asking.need, other
        return need, plan

    def _begin(self, transition: Callable[[], Awaitable[None]]) -> None:
        self._progress = LoadProgress(LoadPhase.STARTING, 0.0)
        self._transition = asyncio.create_task(self._run(transition), name=f"model {self.entry.id}")

    async def _run(self, transition: Callable[[], Awaitable[None]]) -> None:
        try:
            await transition()
        except AutotuneError as error:
            self._load_failed(error)
        except Exception as error:  # noqa: BLE001 - an engine's defect must not end the actor
            _log.exception("load failed unexpectedly", extra=fields(model=self.entry.id))
            self._load_failed(
                ModelLoadFailed(
                    f'Loading "{self.entry.id}" failed: {error}. The daemon\'s log has the details.',
                    model=self.entry.id,
                )
            )
        finally:
            self._transition = None
        self._advance()

    async def _load(self, need: Need, plan: Plan) -> None:
        """Loads, after a pause where incarnation after incarnation crashed."""
        since_crash = self._clock.monotonic() - self._crashed_at_monotonic
        delay = restart.delay_seconds(self._crashes) - since_crash
        if delay > 0:
            _log.warning(
                "waiting before the next load",
                extra=fields(model=self.entry.id, crashes=self._crashes, seconds=delay),
            )
            await asyncio.sleep(delay)
        await self._load_now(need, plan)

    async def _load_now(self, need: Need, plan: Plan) -> None:
        started = self._clock.monotonic()
        loaded = await self._engine.load(self.entry, plan.shape, self._tell_progress)
        now = self._clock.monotonic()
        self._failed = False
        self._residence = Residence(
            loaded=loaded,
            need=need,
            plan=replace(plan, shape=loaded.shape),
            loaded_at=self._clock.now(),
            loaded_at_monotonic=now,
            load_seconds=now - started,
        )
        self._watches[loaded] = asyncio.create_task(
            self._watch(self._residence), name=f"watch {self.entry.id}"
        )
        _log.info(
            "loaded",
            extra=fields(
                model=self.entry.id,
                incarnation=loaded.incarnation_id,
                context_tokens=loaded.shape.context_tokens,
                seconds=round(now - started, 3),
            ),
        )

    async def _unload(self, residence: Residence, asked: _Unloading) -> None:
        await self._end(residence)
        if self._asking and self._asking[0] is asked:
            self._asking.popleft()
        if not asked.done.done():
            asked.done.set_result(True)

    async def _reload(self, residence: Residence, need: Need, plan: Plan) -> None:
        await self._end(residence)
        await self._load_now(need, plan)

    async def _end(self, residence: Residence) -> None:
        """Until its memory is free the model counts as resident, and as draining."""
        if self._lived_seconds(residence) >= restart.STABLE_AFTER_SECONDS:
            self._crashes = 0
        try:
            await residence.loaded.unload()
        finally:
            self._residence = None
        _log.info("unloaded", extra=fields(model=self.entry.id, incarnation=residence.loaded.incarnation_id))

    def _lived_seconds(self, residence: Residence) -> float:
        return self._clock.monotonic() - residence.loaded_at_monotonic

    async def _watch(self, residence: Residence) -> None:
        cause = await residence.loaded.wait_gone()
        del self._watches[residence.loaded]
        self._lose(residence, cause)

    def _load_failed(self, error: AutotuneError) -> None:
        """Everyone who waits now learns of it; whoever asks later causes a new attempt."""
        self._failed = True
        _log.error(
            "load failed", extra=fields(model=self.entry.id, reason=error.reason, message_text=error.message)
        )
        for asking in tuple(self._asking):
            if isinstance(asking, _Unloading):
                break
            self._asking.remove(asking)
            _fail(asking.granted, error)

    def _tell_progress(self, progress: LoadProgress) -> None:
        self._progress = progress
        for asking in self._asking:
            if isinstance(asking, _Acquisition) and not asking.granted.done():
                asking.on_progress(progress)


def _fail(future: asyncio.Future[Lease], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
