"""The incarnations of one model: started, watched, ended, and how often they crashed.

Owned by ``services.model_actor``, which alone decides when. Invariant: ``current`` is None or a residence
whose memory is taken; every incarnation that lives is watched; whatever one computed is saved before it
is ended on purpose.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from autotuned.core.errors import AutotuneError
from autotuned.core.model import LoadPhase, LoadProgress, ModelEntry
from autotuned.core.ports import Clock, Engine, LoadedModel
from autotuned.log import fields
from autotuned.policy import restart
from autotuned.services.askers import OnProgress
from autotuned.services.lease import Choice, Residence

PAUSE_STEP_SECONDS = 1.0
# What saving may take when the daemon stops; most was saved when its conversation came to rest.
CLOSING_SAVE_SECONDS = 6.0

_log = logging.getLogger(__name__)


class KvKeeper(Protocol):
    """What is done about the KV state of an incarnation that ends; ``services.prefixes`` does it."""

    async def save(self, loaded: LoadedModel, within_seconds: float | None = None) -> None:
        """Saves what is worth it, in so much time; None: the time that is usual."""

    def forget(self, loaded: LoadedModel) -> None:
        """The incarnation is gone."""


class Incarnations:
    """``on_lost`` is called when the current one dies without having been asked to."""

    def __init__(
        self,
        *,
        entry: ModelEntry,
        engine: Engine,
        keeper: KvKeeper,
        clock: Clock,
        on_lost: Callable[[], None],
    ) -> None:
        self.entry = entry
        self.current: Residence | None = None
        self._engine = engine
        self._keeper = keeper
        self._clock = clock
        self._on_lost = on_lost
        self._watches: dict[LoadedModel, asyncio.Task[None]] = {}
        self._ending: Residence | None = None
        self._closing = False
        self._crashes = 0
        self._crashed_at_monotonic = 0.0

    def pause_seconds(self) -> float:
        """How long to wait before the next start, where incarnation after incarnation crashed."""
        since_crash = self._clock.monotonic() - self._crashed_at_monotonic
        return max(0.0, restart.delay_seconds(self._crashes) - since_crash)

    async def pause(self, seconds: float, on_progress: OnProgress) -> None:
        """Waits before a start, and tells so each second."""
        if seconds > 0:
            _log.warning("waiting before the next load", extra=fields(model=self.entry.id, seconds=seconds))
        waited = 0.0
        while waited < seconds:
            on_progress(LoadProgress(LoadPhase.WAITING, waited))
            step = min(PAUSE_STEP_SECONDS, seconds - waited)
            await asyncio.sleep(step)
            waited += step

    async def place(self, choice: Choice, on_progress: OnProgress) -> AutotuneError | None:
        """Ends what is loaded and loads the choice; where that fails, what was loaded before.

        Returns why it failed, then. Raises what ``Engine.load`` raises where nothing is loaded afterwards.
        """
        before = self.current
        if before is None:
            await self.start(choice, on_progress)
            return None
        await self.end(before)
        try:
            await self.start(choice, on_progress)
        except AutotuneError as error:
            _log.warning("the former shape is loaded again", extra=fields(model=self.entry.id))
            await self.start(Choice(need=before.need, plan=before.plan), on_progress)
            return error
        return None

    async def start(self, choice: Choice, on_progress: OnProgress) -> Residence:
        """Loads what was chosen. Raises what ``Engine.load`` raises."""
        started = self._clock.monotonic()
        loaded = await self._engine.load(self.entry, choice.plan.shape, on_progress)
        now = self._clock.monotonic()
        residence = Residence(
            loaded=loaded,
            need=choice.need,
            plan=replace(choice.plan, shape=loaded.shape),
            loaded_at=self._clock.now(),
            loaded_at_monotonic=now,
            load_seconds=now - started,
        )
        self.current = residence
        self._watches[loaded] = asyncio.create_task(self._watch(residence), name=f"watch {self.entry.id}")
        _log.info(
            "loaded",
            extra=fields(
                model=self.entry.id,
                incarnation=loaded.incarnation_id,
                context_tokens=loaded.shape.context_tokens,
                bytes=loaded.footprint.total_bytes,
                seconds=round(now - started, 3),
            ),
        )
        return residence

    async def end(self, residence: Residence) -> None:
        """Saves and unloads. Until its memory is free the model counts as resident."""
        self._ending = residence
        if self._lived_seconds(residence) >= restart.STABLE_AFTER_SECONDS:
            self._crashes = 0
        try:
            await self._save(residence.loaded)
            await residence.loaded.unload()
        finally:
            if self.current is residence:
                self.current = None
            self._ending = None
        _log.info("unloaded", extra=fields(model=self.entry.id, incarnation=residence.loaded.incarnation_id))

    async def close(self) -> None:
        """Saves and unloads whatever lives, leases or not."""
        self._closing = True
        for loaded, watch in tuple(self._watches.items()):
            try:
                async with asyncio.timeout(CLOSING_SAVE_SECONDS):
                    await self._save(loaded, CLOSING_SAVE_SECONDS)
            except TimeoutError:
                _log.warning("not all prefixes were saved in time", extra=fields(model=self.entry.id))
            await loaded.release()
            await asyncio.wait([watch])

    async def _save(self, loaded: LoadedModel, within_seconds: float | None = None) -> None:
        """Whatever goes wrong with it, the incarnation can be unloaded afterwards."""
        if loaded.is_gone:
            return
        try:
            await self._keeper.save(loaded, within_seconds)
        except Exception:  # noqa: BLE001 - what is not saved is computed again
            _log.exception("prefixes were not saved", extra=fields(model=self.entry.id))

    async def _watch(self, residence: Residence) -> None:
        cause = await residence.loaded.wait_gone()
        del self._watches[residence.loaded]
        self._keeper.forget(residence.loaded)
        if self.current is not residence or self._ending is residence:
            return
        self.current = None
        if self._closing:
            return
        self._crashes = restart.crashes_in_a_row(self._crashes, self._lived_seconds(residence))
        self._crashed_at_monotonic = self._clock.monotonic()
        _log.error(
            "worker is gone",
            extra=fields(model=self.entry.id, incarnation=residence.loaded.incarnation_id, cause=cause),
        )
        self._on_lost()

    def _lived_seconds(self, residence: Residence) -> float:
        return self._clock.monotonic() - residence.loaded_at_monotonic
