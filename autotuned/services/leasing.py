"""How one request comes to a lease that serves it.

``services.generation`` and ``services.prewarm`` own one for each request. What a request needs is
estimated until the engine has counted its prompt; then it is exact, and a lease that is too small for it
is given back for another one. Invariant: one exact growth and one worker that was found dead cost another
lease each, and nothing costs more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from autotuned.core.errors import ContextTooLong, EngineUnreachable, WouldSwap
from autotuned.core.model import LoadProgress
from autotuned.core.plan import Need, Plan, PlanAction
from autotuned.core.ports import Clock
from autotuned.services.lease import Lease
from autotuned.services.model_actor import ModelActor

T = TypeVar("T")
OnWaited = Callable[[float, float], None]


class LeaseAgainError(Exception):
    """The lease does not serve: the context is too small by the engine's count, or others fill it."""


class Leasing:
    """``need`` and ``plan`` are the latest ones. ``on_waited`` is told the seconds of loads and of others."""

    def __init__(
        self,
        *,
        actor: ModelActor,
        need: Need,
        keep_alive_seconds: float | None,
        on_progress: Callable[[LoadProgress], None],
        on_waited: OnWaited,
        clock: Clock,
    ) -> None:
        self.need = need
        self.plan: Plan | None = None
        self._actor = actor
        self._keep_alive_seconds = keep_alive_seconds
        self._on_progress = on_progress
        self._on_waited = on_waited
        self._clock = clock
        self._found_gone = False

    async def use(self, run: Callable[[Lease], Awaitable[T]]) -> T:
        """Runs on a lease; again where ``counted`` or the engine says that it did not serve.

        Raises what ``ModelActor.acquire`` and the run raise.
        """
        while True:
            with await self._acquire() as lease:
                self.plan = lease.plan
                try:
                    return await run(lease)
                except LeaseAgainError:
                    continue
                except ContextTooLong as error:
                    if self.need.prompt_is_exact:
                        raise
                    self._exactly(error.prompt_tokens)
                except EngineUnreachable as error:
                    if error.served or self._found_gone:
                        raise
                    self._found_gone = True

    def counted(self, lease: Lease, prompt_tokens: int) -> None:
        """The engine's count is known. Raises LeaseAgainError where this lease does not hold it."""
        if self.need.prompt_is_exact:
            return
        self._exactly(prompt_tokens)
        try:
            exact = self._actor.plan(self.need, lease.loaded.shape)
        except WouldSwap as error:  # by the latest reading; a fresh one decides
            raise LeaseAgainError from error
        if exact.action is not PlanAction.REUSE or not lease.claim(self.need):
            raise LeaseAgainError
        if lease.plan.action is PlanAction.REUSE:
            self.plan = exact

    def _exactly(self, prompt_tokens: int) -> None:
        self.need = replace(self.need, prompt_tokens=prompt_tokens, prompt_is_exact=True)

    async def _acquire(self) -> Lease:
        asked_at = self._clock.monotonic()
        loads = False

        def tell(progress: LoadProgress) -> None:
            nonlocal loads
            loads = True
            self._on_progress(progress)

        try:
            lease = await self._actor.acquire(self.need, tell, self._keep_alive_seconds)
        except BaseException:
            waited = self._clock.monotonic() - asked_at
            self._on_waited(waited if loads else 0.0, 0.0 if loads else waited)
            raise
        self._on_waited(lease.load_seconds, lease.waited_seconds - lease.load_seconds)
        return lease
