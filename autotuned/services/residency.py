"""Who shares the memory: the latest reading, its pressure, and the loads that are under way.

``services.models`` registers every model; actors ask it for room before they load, and the daemon's job
lets it relieve the pressure. Invariants: room is found for one load at a time, and stays reserved until
that load has taken it; a busy model is never asked to leave. Whoever needs the memory of a busy model
does not wait for it, since the two might want each other's: it is refused, or swaps where it may.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from autotuned.core.memory import Footprint, MemoryReading, MemoryView, PressureTier, Resident
from autotuned.core.ports import Clock, Machine
from autotuned.log import fields
from autotuned.policy.pressure import next_tier
from autotuned.services.lease import Choice, Residence

# Under pressure a model leaves that nobody has used for so long: not in the pause between two turns.
REST_SECONDS: Mapping[PressureTier, float] = MappingProxyType(
    {PressureTier.HIGH: 60.0, PressureTier.CRITICAL: 10.0}
)
EVICTIONS = "evictions"  # the code of the reason that names who leaves
UNKNOWN = MemoryReading(total_bytes=0, available_bytes=0, swap_total_bytes=0, swap_free_bytes=0)

_log = logging.getLogger(__name__)


class Tenant(Protocol):
    """A model as residency sees it; ``services.model_actor`` is one."""

    @property
    def model_id(self) -> str:
        """Its id."""

    @property
    def residence(self) -> Residence | None:
        """What is loaded of it, if anything."""

    @property
    def takes_cache_later(self) -> bool:
        """Whether its engine takes the memory of the KV cache as the context fills, not at the load."""

    @property
    def is_busy(self) -> bool:
        """Whether it is used, asked for or changing: then it cannot leave."""

    @property
    def last_used_at(self) -> float:
        """Seconds since the epoch."""

    async def settle(self) -> None:
        """Waits for the end of an unload that is under way."""

    async def leave(self, cause: str) -> bool:
        """Unloads it if nobody uses it; False where somebody does."""

    def shrink(self) -> None:
        """Begins to load it in a smaller shape, if nobody uses it and the pressure asks for it."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """``freed_bytes``: what unloading frees; ``unclaimed_bytes``: what the incarnation may still take."""

    incarnation_id: str
    freed_bytes: int
    unclaimed_bytes: int


class Residency:
    """The memory of the machine, as this daemon shares it among its models."""

    def __init__(self, *, machine: Machine, clock: Clock) -> None:
        self._machine = machine
        self._clock = clock
        self._tenants: dict[str, Tenant] = {}
        self._measured: dict[str, _Measured] = {}
        self._reserved: dict[str, int] = {}
        self._arranging = asyncio.Lock()
        self._reading = UNKNOWN
        self._pressure = PressureTier.NORMAL

    @property
    def pressure(self) -> PressureTier:
        """The tier of the latest reading."""
        return self._pressure

    def register(self, tenant: Tenant) -> None:
        """From now on this model counts."""
        self._tenants[tenant.model_id] = tenant

    async def refresh(self) -> None:
        """Reads memory now."""
        self._reading = await self._machine.read_memory()
        for tenant in self._tenants.values():
            self._measure(tenant)
        before, self._pressure = self._pressure, next_tier(self._pressure, self._reading)
        if self._pressure is not before:
            _log.info(
                "memory pressure",
                extra=fields(tier=self._pressure.name.lower(), available_bytes=self._reading.available_bytes),
            )

    def view(self, model_id: str) -> MemoryView:
        """What a plan for this model may know of memory, by the latest reading."""
        return MemoryView(
            reading=self._reading,
            pressure=self._pressure,
            residents=tuple(
                Resident(
                    model_id=tenant.model_id,
                    freed_bytes=self.freed_bytes(tenant.model_id),
                    is_busy=tenant.is_busy,
                    last_used_at=tenant.last_used_at,
                    promised_bytes=self.promised_bytes(tenant.model_id),
                )
                for tenant in self._tenants.values()
                if tenant.model_id != model_id and tenant.residence is not None
            ),
            reserved_bytes=sum(self._promised_bytes(tenant) for tenant in self._tenants.values()),
        )

    def freed_bytes(self, model_id: str) -> int:
        """What unloading this model adds to the memory that can be had; 0 where it is not loaded."""
        tenant = self._tenants.get(model_id)
        measured = self._of(tenant) if tenant else None
        return measured.freed_bytes + measured.unclaimed_bytes if measured else 0

    def promised_bytes(self, model_id: str) -> int:
        """What it may still take of the bytes that unloading it frees; 0 where it is not loaded."""
        tenant = self._tenants.get(model_id)
        measured = self._of(tenant) if tenant else None
        return measured.unclaimed_bytes if measured else 0

    def footprint(self, model_id: str) -> Footprint | None:
        """What the engine measured of this model; None where it is not loaded."""
        tenant = self._tenants.get(model_id)
        residence = tenant.residence if tenant else None
        return residence.loaded.footprint if residence else None

    @contextmanager
    def reserve(self, model_id: str, reserved_bytes: int) -> Generator[None, None, None]:
        """Counts so many bytes as taken until the load has taken them.

        Those of a first load count in full until it is loaded, though its worker takes them one by one: for
        that time too little room is seen, never too much. What a loaded model has already counts once.
        """
        self._reserved[model_id] = reserved_bytes
        try:
            yield
        finally:
            del self._reserved[model_id]

    @asynccontextmanager
    async def room(
        self, model_id: str, choose: Callable[[], Choice | None]
    ) -> AsyncGenerator[Choice | None, None]:
        """Lets the model be chosen for from fresh facts, makes room, and reserves it for the block.

        ``choose`` answers None where there is nothing to load. It is asked again when memory came out
        differently: somebody came for a model that was to leave, or what left freed too little.
        """
        async with self._arranging:
            choice = await self._arrange(choose)
            self._reserved[model_id] = choice.plan.footprint.total_bytes if choice else 0
        try:
            yield choice
            if choice is not None:
                await self.refresh()  # what was reserved is taken
        finally:
            del self._reserved[model_id]

    async def relieve(self) -> None:
        """Reads memory, and does about a shortage what can be done without disturbing anybody.

        From HIGH on the model that rests longest leaves, one at a time; at CRITICAL those that stay
        shrink. When memory is back nothing is loaded again before somebody needs it.
        """
        await self.refresh()
        if self._pressure < PressureTier.HIGH or self._arranging.locked():
            return
        async with self._arranging:
            resting = [tenant for tenant in self._tenants.values() if self._rests(tenant)]
            if resting:
                longest = min(resting, key=lambda tenant: tenant.last_used_at)
                await longest.leave(f"memory pressure is {self._pressure.name.lower()}")
                await self.refresh()
        if self._pressure is PressureTier.CRITICAL:
            for tenant in self._tenants.values():
                tenant.shrink()

    async def _arrange(self, choose: Callable[[], Choice | None]) -> Choice | None:
        """The choice, when all that leave for it have left."""
        left: tuple[str, ...] = ()
        first: Choice | None = None
        while True:
            for tenant in tuple(self._tenants.values()):  # a model may be found meanwhile
                await tenant.settle()
            await self.refresh()
            choice = choose()
            if choice is None:
                return None
            if not choice.plan.evictions:
                return _told_of(choice, first, left)
            first = first or choice
            for model_id in choice.plan.evictions:
                if not await self._tenants[model_id].leave("its memory is needed for another model"):
                    break  # somebody came for it
                left += (model_id,)

    def _rests(self, tenant: Tenant) -> bool:
        if tenant.residence is None or tenant.is_busy:
            return False
        return self._clock.now() - tenant.last_used_at >= REST_SECONDS[self._pressure]

    def _promised_bytes(self, tenant: Tenant) -> int:
        """What a load under way, or a cache that may still grow, has not taken yet."""
        measured = self._of(tenant)
        if tenant.model_id in self._reserved:
            taken_bytes = measured.freed_bytes if measured else 0
            return max(0, self._reserved[tenant.model_id] - taken_bytes)
        return measured.unclaimed_bytes if measured else 0

    def _of(self, tenant: Tenant) -> _Measured | None:
        residence = tenant.residence
        if residence is None:
            return None
        measured = self._measured.get(tenant.model_id)
        if measured is not None and measured.incarnation_id == residence.loaded.incarnation_id:
            return measured
        return self._measure(tenant)

    def _measure(self, tenant: Tenant) -> _Measured | None:
        residence = tenant.residence
        if residence is None:
            self._measured.pop(tenant.model_id, None)
            return None
        loaded, footprint = residence.loaded, residence.loaded.footprint
        memory = self._machine.process_memory(loaded.process_id)
        mapped_bytes = footprint.weights_bytes if loaded.shape.memory_mapped else 0
        if memory.resident_bytes:
            of_files = memory.resident_bytes - memory.anonymous_bytes
            freed_bytes = memory.anonymous_bytes + min(of_files, mapped_bytes)
            missing_bytes = footprint.total_bytes - mapped_bytes - memory.anonymous_bytes
            later_bytes = footprint.host_prompt_cache_bytes
            if tenant.takes_cache_later:
                later_bytes += footprint.kv_cache_bytes
            unclaimed_bytes = min(max(0, missing_bytes), later_bytes)
        else:  # no process of its own
            unclaimed_bytes = footprint.host_prompt_cache_bytes  # taken later, if at all
            freed_bytes = footprint.total_bytes - unclaimed_bytes
        measured = _Measured(loaded.incarnation_id, freed_bytes, unclaimed_bytes)
        self._measured[tenant.model_id] = measured
        return measured


def _told_of(choice: Choice, first: Choice | None, left: tuple[str, ...]) -> Choice:
    """The plan as it was made when memory was free, and who left for it, with what was said of that."""
    if first is None:
        return choice
    who_left = tuple(reason for reason in first.plan.reasons if reason.code == EVICTIONS)
    plan = replace(
        choice.plan,
        evictions=left,
        reasons=choice.plan.reasons + who_left,
        available_before_bytes=first.plan.available_before_bytes,
    )
    return Choice(need=choice.need, plan=plan)
