"""Who runs now and who waits: a bounded first-in-first-out queue for one model.

Owned by ``services.inference``, one per model. Invariant: never more turns are out than the model
has slots, and a turn that was granted is always given back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

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

    @property
    def active_count(self) -> int:
        """Requests that run."""
        return self._active_count

    @property
    def waiting_count(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

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
            yield
        finally:
            self._active_count -= 1
            self._grant()

    def refuse_waiting(self) -> None:
        """Ends every wait with ShuttingDown; running requests keep their turns."""
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

    def _tell_positions(self) -> None:
        for position, waiting in enumerate(self._waiting, start=1):
            waiting.on_position(position)


class _Waiting:
    def __init__(self, on_position: Callable[[int], None]) -> None:
        self.on_position = on_position
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
