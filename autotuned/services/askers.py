"""Who asks something of one model, in the order of asking.

Each ``services.model_actor`` owns one queue and alone takes from it. Invariant: whoever is in it has
been neither answered nor refused, unless it cancelled and its task has not run since.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from autotuned.core.errors import ShuttingDown
from autotuned.core.model import LoadProgress
from autotuned.core.plan import Need, Plan, PlanAction
from autotuned.services.lease import Lease, Residence

OnProgress = Callable[[LoadProgress], None]


@dataclass(slots=True, eq=False, kw_only=True)
class Acquisition:
    """Somebody wants a lease. ``changed_seconds`` is what the model had spent changing at ``asked_at``."""

    need: Need
    on_progress: OnProgress
    keep_alive_seconds: float | None
    asked_at: float
    changed_seconds: float
    granted: asyncio.Future[Lease] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True, eq=False)
class Unloading:
    """Somebody wants the model out of memory."""

    done: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Askers:
    """First come, first served."""

    def __init__(self) -> None:
        self._queue: deque[Acquisition | Unloading] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def __contains__(self, asking: object) -> bool:
        return asking in self._queue

    @property
    def waiting_count(self) -> int:
        """Requests that wait for a lease."""
        return sum(isinstance(asking, Acquisition) for asking in self._queue)

    def append(self, asking: Acquisition | Unloading) -> None:
        """Comes last."""
        self._queue.append(asking)

    def remove(self, asking: Acquisition | Unloading) -> None:
        """Wants nothing any more, or has been answered."""
        self._queue.remove(asking)

    def first(self) -> Acquisition | Unloading | None:
        """Who is to be served next."""
        while self._queue:
            head = self._queue[0]
            if isinstance(head, Unloading) or not head.granted.done():
                return head
            self._queue.popleft()  # cancelled
        return None

    def waiting(self) -> Iterator[Acquisition]:
        """Who waits for a lease, in order, up to the first that asks for an unload."""
        for asking in tuple(self._queue):
            if isinstance(asking, Unloading):
                return
            if not asking.granted.done():
                yield asking

    def refuse(self, asking: Acquisition, error: Exception) -> None:
        """Is told why not."""
        self._queue.remove(asking)
        if not asking.granted.done():
            asking.granted.set_exception(error)

    def tell(self, progress: LoadProgress) -> None:
        """Everyone who waits for a lease learns how far the load is."""
        for asking in self._queue:
            if isinstance(asking, Acquisition) and not asking.granted.done():
                asking.on_progress(progress)

    def dismiss(self) -> None:
        """The daemon stops: who wants a lease is refused, who wants the model gone has it."""
        for asking in tuple(self._queue):
            if isinstance(asking, Acquisition):
                self.refuse(asking, ShuttingDown())
            elif not asking.done.done():
                asking.done.set_result(True)
        self._queue.clear()


def told_plan(residence: Residence, plan: Plan, asked: Acquisition) -> Plan:
    """Whoever the load was planned for is told that plan; the others, that it holds them, too."""
    waited_for_it = residence.loaded_at_monotonic >= asked.asked_at
    planned_for_it = residence.need == asked.need and residence.plan.action is not PlanAction.SHRINK
    return residence.plan if waited_for_it and planned_for_it else with_shrink(residence, plan)


def with_shrink(residence: Residence | None, plan: Plan) -> Plan:
    """Why a model shrank is told to everybody who uses it so, until it is loaded again."""
    if residence is None or residence.plan.action is not PlanAction.SHRINK:
        return plan
    if plan.action is not PlanAction.REUSE:
        return plan
    return replace(plan, reasons=plan.reasons + residence.plan.reasons)
