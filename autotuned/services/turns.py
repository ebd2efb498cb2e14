"""Who runs now and who waits: a bounded first-in-first-out queue for one model, and its spare time.

Owned by ``services.inference``, one per model. Invariants: never more turns are out than the model
has slots, and a turn that was granted is always given back; what runs in spare time holds up no request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from autotuned.core.errors import QueueFull, ShuttingDown
from autotuned.core.settings import QueueSettings

# What a client is told to wait when the queue is full: about one short answer.
RETRY_SECONDS = 2.0


class Turns:
    """The turns of one model."""

    def __init__(self, *, model: str, slots_count: int, settings: QueueSettings) -> None:
        self._model = model
        self._slots_count = slots_count
        self._settings = settings
        self._active_count = 0
        self._waiting: deque[_Waiting] = deque()
        self._spare: asyncio.Task[None] | None = None
        self._spare_waiting: set[asyncio.Future[None]] = set()
        self._refuses = False

    @property
    def active_count(self) -> int:
        """Requests that run."""
        return self._active_count

    @property
    def waiting_count(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def resize(self, slots_count: int) -> None:
        """The engine has so many slots now; turns that are out stay out."""
        if slots_count != self._slots_count:
            self._slots_count = slots_count
            self._grant()

    @asynccontextmanager
    async def turn(self, on_position: Callable[[int], None]) -> AsyncGenerator[None, None]:
        """Holds a turn for the time of the block; ``on_position`` is told how many go first.

        Raises QueueFull when too many wait already, or when the wait takes too long.
        """
        if self._active_count < self._slots_count and not self._waiting:
            self._active_count += 1
        else:
            await self._wait(on_position)
        try:
            await self._end_spare()
            yield
        finally:
            self._active_count -= 1
            self._grant()

    async def in_spare_time(self, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Runs ``work`` while no request runs or waits; False where a request came before it was done.

        It is cancelled then. It waits for spare time in a queue of its own, of the same bounds as that
        of requests. Raises what ``work`` raises, and ShuttingDown.
        """
        if not await self._spare_time():
            return False
        task = self._spare = asyncio.create_task(work(), name=f"spare time of {self._model}")
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            self._spare = None
            self._tell_rest()
        if task.cancelled():
            self._refuse_when_stopping()
            return False
        task.result()
        return True

    def refuse_waiting(self) -> None:
        """Ends every wait with ShuttingDown, and spare time; running requests keep their turns."""
        self._refuses = True
        if self._spare is not None:
            self._spare.cancel()
        self._tell_rest()
        for waiting in self._waiting:
            if not waiting.granted.done():
                waiting.granted.set_exception(ShuttingDown())
        self._waiting.clear()

    async def _wait(self, on_position: Callable[[int], None]) -> None:
        if len(self._waiting) >= self._settings.max_waiting:
            raise QueueFull(
                f'The queue of "{self._model}" is full at its limit of {self._settings.max_waiting} waiting; '
                f"try again in a few seconds or raise queue.max_waiting.",
                retry_seconds=RETRY_SECONDS,
                model=self._model,
                maxWaiting=self._settings.max_waiting,
            )
        waiting = _Waiting(on_position)
        self._waiting.append(waiting)
        on_position(len(self._waiting))
        try:
            async with asyncio.timeout(self._settings.wait_seconds):
                await waiting.granted
        except TimeoutError:
            self._leave(waiting)
            raise QueueFull(
                f'The request waited {self._settings.wait_seconds:g} s for "{self._model}" and got no turn; '
                f"try again or raise queue.wait_seconds.",
                retry_seconds=RETRY_SECONDS,
                model=self._model,
                waitSeconds=f"{self._settings.wait_seconds:g}",
            ) from None
        except asyncio.CancelledError:
            self._leave(waiting)
            raise

    def _leave(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            self._tell_positions()
        elif waiting.granted.done() and not waiting.granted.cancelled() and not waiting.granted.exception():
            # The turn was granted in the very moment in which the wait ended: pass it on.
            self._active_count -= 1
            self._grant()

    def _grant(self) -> None:
        granted = False
        while self._waiting and self._active_count < self._slots_count:
            waiting = self._waiting.popleft()
            if waiting.granted.done():  # cancelled, and its task has not run since
                continue
            self._active_count += 1
            waiting.granted.set_result(None)
            granted = True
        if granted:
            self._tell_positions()
        if self._is_idle():
            self._tell_rest()

    async def _spare_time(self) -> bool:
        """Waits until nothing runs or waits; False where that takes too long."""
        if not self._is_idle() and len(self._spare_waiting) >= self._settings.max_waiting:
            return False
        try:
            async with asyncio.timeout(self._settings.wait_seconds):
                while not self._is_idle():
                    await self._wait_for_rest()
        except TimeoutError:
            return False
        self._refuse_when_stopping()
        return True

    async def _wait_for_rest(self) -> None:
        rest: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._spare_waiting.add(rest)
        try:
            await rest
        finally:
            self._spare_waiting.discard(rest)
        self._refuse_when_stopping()

    def _tell_rest(self) -> None:
        """Whoever waits for spare time looks again; the first one takes it."""
        for rest in self._spare_waiting:
            if not rest.done():
                rest.set_result(None)

    async def _end_spare(self) -> None:
        """A request has a turn: spare time is over."""
        if self._spare is not None:
            self._spare.cancel()
            await asyncio.wait([self._spare])

    def _is_idle(self) -> bool:
        return not self._active_count and not self._waiting and self._spare is None

    def _refuse_when_stopping(self) -> None:
        if self._refuses:
            raise ShuttingDown

    def _tell_positions(self) -> None:
        for position, waiting in enumerate(self._waiting, start=1):
            waiting.on_position(position)


class _Waiting:
    def __init__(self, on_position: Callable[[int], None]) -> None:
        self.on_position = on_position
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
