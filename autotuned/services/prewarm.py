"""Computes the beginning of a prompt before anybody asks for its answer.

``services.inference`` makes one for each call and runs it in a model's spare time. Invariant: it writes
no token and leaves no record; what it computed before it gave way stays in the engine's cache.
"""

from __future__ import annotations

from contextlib import aclosing

from autotuned.core.chat import ChatInput
from autotuned.core.generation import PrefillProgress, Prewarmed, Usage
from autotuned.core.model import LoadProgress
from autotuned.services.lease import Lease
from autotuned.services.leasing import Leasing
from autotuned.services.request_context import RequestContext


class Prewarm:
    """One prewarm; without messages and tools the model is only loaded."""

    def __init__(self, context: RequestContext) -> None:
        self._context = context
        self._began_at = context.clock.monotonic()
        self._load_seconds = 0.0
        self._first: PrefillProgress | None = None
        self._leasing = Leasing(
            actor=context.actor,
            need=context.need,
            keep_alive_seconds=context.request.keep_alive_seconds,
            on_progress=_ignore,
            on_waited=self._waited,
            clock=context.clock,
        )

    async def run(self) -> None:
        """Loads and prefills. Raises what loads and engines raise; cancelling it gives way."""
        await self._leasing.use(self._run)

    def result(self, *, overtaken: bool) -> Prewarmed:
        """What came of it. Raises what the planner raises where it was overtaken before it had a plan."""
        residence = self._context.actor.residence
        loaded = residence.loaded.shape if residence else None
        first = self._first
        return Prewarmed(
            plan=self._leasing.plan or self._context.actor.plan(self._leasing.need, loaded),
            prompt_tokens=first.prompt_tokens if first else 0,
            cached_tokens=first.cached_tokens if first else 0,
            overtaken=overtaken,
            load_seconds=self._load_seconds,
            total_seconds=self._context.clock.monotonic() - self._began_at,
        )

    async def _run(self, lease: Lease) -> None:
        request = self._context.request
        if isinstance(request.input, ChatInput) and not request.input.messages and not request.input.tools:
            return
        first, counted_at = None, 0.0
        async with self._context.prewarmed_prefix(lease.loaded) as prefix:
            async with aclosing(lease.loaded.prefill(request, prefix.conversation)) as steps:
                async for step in steps:
                    if first is None:
                        first, counted_at = step, self._context.clock.monotonic()
                        self._count(step, lease)
            if first is not None:
                seconds = self._context.clock.monotonic() - counted_at
                usage = Usage(first.prompt_tokens, first.cached_tokens, 0)
                lease.came_to(usage)
                prefix.ended(usage, seconds)
                self._context.prefilled(first.prompt_tokens - first.cached_tokens, seconds)

    def _count(self, progress: PrefillProgress, lease: Lease) -> None:
        """The engine's count is known, before anything is computed."""
        self._first = progress
        self._context.counted(progress.prompt_tokens)
        self._leasing.counted(lease, progress.prompt_tokens)

    def _waited(self, load_seconds: float, _busy_seconds: float) -> None:
        self._load_seconds += load_seconds


def _ignore(_progress: LoadProgress) -> None:
    """Nobody watches it."""
