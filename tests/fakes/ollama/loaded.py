"""What a request wants of a runner, what a loaded one is, and whether the one fits the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.fakes.ollama.models import Model
from tests.fakes.ollama.options import Options
from tests.fakes.ollama.runner import Runner
from tests.fakes.ollama.settings import FOREVER_SECONDS

_MIN_CONTEXT = 4
_MIN_VISION_CONTEXT = 2048
_MAX_TIMER_SECONDS = 1e8
# Contexts longer than the first number have the second as their batch, when nobody chose one.
_AUTOMATIC_BATCHES = ((32768, 2048), (4096, 1024))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model in a shape. ``context_shift`` is part of it, because it is a launch option."""

    model: Model
    options: Options
    keep_alive_seconds: float | None
    context_is_automatic: bool
    batch_is_automatic: bool
    context_shift: bool
    parallel: int
    mmap_is_automatic: bool = False

    @property
    def key(self) -> str:
        return str(self.model.blob)

    def bounded(self) -> Wanted:
        """With the smallest context that there is."""
        least = _MIN_VISION_CONTEXT if "vision" in self.model.capabilities else _MIN_CONTEXT
        return self._with_shape(num_ctx=max(self.options.runner.num_ctx, least))

    def completed(self) -> Wanted:
        """As it is loaded: what was left open is chosen for a machine without a GPU."""
        context = self.clamped(self.options.runner.num_ctx)
        changes: dict[str, Any] = {"num_ctx": context}
        if self.batch_is_automatic:
            cells = context * self.parallel
            changes["num_batch"] = next((batch for over, batch in _AUTOMATIC_BATCHES if cells > over), 512)
        automatic = self.options.runner.use_mmap is None
        if automatic:
            changes["use_mmap"] = False
        return replace(self._with_shape(**changes), mmap_is_automatic=automatic)

    def clamped(self, context: int) -> int:
        return min(context, self.model.content.of_architecture("context_length") or context)

    def _with_shape(self, **changes: Any) -> Wanted:
        shape = replace(self.options.runner, **changes)
        return replace(self, options=replace(self.options, runner=shape))


class Loaded:
    """A runner, from the moment its load begins."""

    def __init__(self, wanted: Wanted, runner: Runner) -> None:
        self.wanted = wanted
        self.key = wanted.key
        self.runner = runner
        self.users = 0
        self.keep_alive_seconds = wanted.keep_alive_seconds or 0.0
        self.expires_at: float | None = None
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        self.leaving = False
        self._timer: asyncio.TimerHandle | None = None

    async def needs_reload(self, wanted: Wanted) -> bool:
        """Waits while it loads, and then compares the shapes as the original does."""
        await self.ready.wait()
        if self.leaving:
            return True
        mine = self.wanted.options.runner
        theirs = replace(wanted.options.runner, num_ctx=wanted.clamped(wanted.options.runner.num_ctx))
        if self.wanted.context_is_automatic and wanted.context_is_automatic:
            theirs.num_ctx = mine.num_ctx
        if self.wanted.batch_is_automatic and wanted.batch_is_automatic:
            theirs.num_batch = mine.num_batch
        if self.wanted.mmap_is_automatic and theirs.use_mmap is None:
            theirs.use_mmap = mine.use_mmap
        if theirs.num_gpu < 0:
            mine, theirs = replace(mine, num_gpu=-1), replace(theirs, num_gpu=-1)
        other = self.wanted.context_shift != wanted.context_shift or mine != theirs
        # While it is asked, its time may be over.
        return other or not await self.runner.healthy() or self.leaving

    def use(self, wanted: Wanted) -> None:
        """Counts a user; a time to be kept that was not said leaves the one there is."""
        self.users += 1
        self.stop_timer()
        if wanted.keep_alive_seconds is not None:
            self.keep_alive_seconds = wanted.keep_alive_seconds

    def keep(self, expired: Callable[[], None]) -> None:
        """Starts the time to be kept."""
        self.stop_timer()
        self.expires_at = time.time() + self.keep_alive_seconds
        seconds = min(self.keep_alive_seconds, _MAX_TIMER_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(seconds, expired)

    def stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def expiry(self) -> float:
        """Seconds since 1970."""
        return self.expires_at or time.time() + min(self.keep_alive_seconds, FOREVER_SECONDS)

    def described(self) -> dict[str, Any]:
        return {
            "model": self.wanted.model.name.shortest,
            "users": self.users,
            "keep_alive_seconds": self.keep_alive_seconds,
        } | self.runner.described()
