"""Which slot of a worker holds the KV state of which conversation.

``model`` takes a slot for everything that touches one; nobody else knows that slots exist.
Invariants: a slot is taken by one at a time; no two slots hold one conversation; a slot whose state
is in doubt holds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Slot:
    """One slot. ``holds`` is "" where its state belongs to no conversation that has a name.

    ``is_settled`` is False while the worker may still be at work on a request that was given up.
    """

    number: int
    holds: str = ""
    is_settled: bool = True


class Slots:
    """The slots of one worker; the free ones in the order of their last use."""

    def __init__(self, count: int) -> None:
        self._slots = tuple(Slot(number) for number in range(count))
        self._free = list(self._slots)
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._slots)

    @asynccontextmanager
    async def take(self, conversation: str) -> AsyncIterator[Slot]:
        """The free slot that holds the conversation, else the one that was used longest ago.

        Waits while none is free.
        """
        while not self._free:
            await self._until_freed()
        slot = next(
            (slot for slot in self._free if conversation and slot.holds == conversation), self._free[0]
        )
        async with self._taken(slot):
            yield slot

    @asynccontextmanager
    async def take_holder(self, conversation: str) -> AsyncIterator[Slot | None]:
        """The slot that holds the conversation, once it is free; None where none does."""
        while (slot := self._holder(conversation)) is not None and slot not in self._free:
            await self._until_freed()
        if slot is None:
            yield None
            return
        place = self._free.index(slot)
        async with self._taken(slot):
            yield slot
        # To be saved is no use: the slot is as old as it was.
        self._free.remove(slot)
        self._free.insert(min(place, len(self._free)), slot)

    def has_holder(self, conversation: str) -> bool:
        """Whether any slot holds the conversation."""
        return self._holder(conversation) is not None

    def hold(self, slot: Slot, conversation: str) -> None:
        """From now on this slot holds the conversation, and no other does."""
        if (other := self._holder(conversation)) is not None:
            other.holds = ""
        slot.holds = conversation
        self._wake()  # who waited for what this slot held waits no more

    def _holder(self, conversation: str) -> Slot | None:
        return next((slot for slot in self._slots if slot.holds == conversation != ""), None)

    @asynccontextmanager
    async def _taken(self, slot: Slot) -> AsyncIterator[None]:
        self._free.remove(slot)
        try:
            yield
        finally:
            self._free.append(slot)
            self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _until_freed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
