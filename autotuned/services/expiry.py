"""How long an unused model stays in memory, and the timer that ends it.

Each ``services.model_actor`` owns one. Invariant: the timer runs only while the model is loaded and
nobody uses it; nothing wakes where the keep-alive is negative.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from autotuned.core.ports import Clock
from autotuned.policy.residency import expired


class Expiry:
    """``keep_alive_seconds`` is what the last request that said something wanted; negative is forever."""

    def __init__(self, *, clock: Clock, configured_seconds: float, on_expired: Callable[[], None]) -> None:
        self.keep_alive_seconds = configured_seconds
        self.used_at = 0.0  # seconds since the epoch
        self._clock = clock
        self._configured_seconds = configured_seconds
        self._on_expired = on_expired
        self._used_at_monotonic = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def used(self) -> None:
        """The model is used now."""
        self.used_at = self._clock.now()
        self._used_at_monotonic = self._clock.monotonic()

    def start(self) -> None:
        """Nobody uses the model: counts from its last use."""
        self.stop()
        if self.keep_alive_seconds < 0:
            return
        left_seconds = self._used_at_monotonic + self.keep_alive_seconds - self._clock.monotonic()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, left_seconds), self._ring)

    def stop(self) -> None:
        """Somebody uses the model, or it is not loaded."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """The model left: the next load begins with the configured time."""
        self.stop()
        self.keep_alive_seconds = self._configured_seconds

    def expires_at(self, *, is_busy: bool) -> float:
        """Seconds since the epoch; a busy model counts from now. 0: never."""
        if self.keep_alive_seconds < 0:
            return 0.0
        return (self._clock.now() if is_busy else self.used_at) + self.keep_alive_seconds

    def _ring(self) -> None:
        if expired(self._used_at_monotonic, self.keep_alive_seconds, self._clock.monotonic()):
            self._on_expired()
        else:
            self.start()  # the machine slept, or its clocks differ by a little
