"""Loads and unloads: what the server is asked, how long it takes, and what came of it.

``engine`` calls it. A load is a chat without messages; the server answers when the model is in memory.
Invariant: a load that fails or is cancelled is taken back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from autotuned.core.engine import EngineState
from autotuned.core.errors import AutotuneError, ModelLoadFailed, ModelNotFound
from autotuned.core.model import LoadPhase, LoadProgress
from autotuned.core.ports import Clock
from autotuned.engines.chat_events import UnreadableStream
from autotuned.engines.http import ConnectionBroken, ConnectionSilent
from autotuned.engines.ollama.body import Incarnation, give_back_call, load_call, unload_call
from autotuned.engines.ollama.catalog import Catalog
from autotuned.engines.ollama.client import NOT_FOUND, Ended, Refused, Running, RunningList, ask
from autotuned.engines.ollama.refusals import quoted
from autotuned.engines.ollama.server import PROGRAM, Server
from autotuned.log import fields

# How fast weights are read, for a guess at when the rest begins: the server does not say.
READ_BYTES_PER_SECOND = 2e9
# Others may still use a model that is to leave; the server waits for them.
UNLOAD_SECONDS = 60.0
UNLOAD_LOOK_SECONDS = 0.02

Answer = (Refused, UnreadableStream, ConnectionBroken, ConnectionSilent)

_log = logging.getLogger(__name__)


class Loading:
    """Loads and unloads models of one server."""

    def __init__(self, *, server: Server, catalog: Catalog, clock: Clock, timeout_seconds: float) -> None:
        self._server = server
        self._catalog = catalog
        self._clock = clock
        self._timeout_seconds = timeout_seconds

    async def load(
        self, incarnation: Incarnation, on_progress: Callable[[LoadProgress], None]
    ) -> tuple[Running, float]:
        """What the server has then, and the seconds that it took.

        Raises ``ModelNotFound``, ``ModelLoadFailed`` and ``EngineUnreachable``.
        """
        name, began_at = incarnation.model.name, self._clock.monotonic()

        def tell(phase: LoadPhase) -> None:
            on_progress(LoadProgress(phase, self._clock.monotonic() - began_at))

        tell(LoadPhase.STARTING)
        reading_seconds = incarnation.model.size_bytes / READ_BYTES_PER_SECOND
        loop = asyncio.get_running_loop()
        timers = (
            loop.call_soon(tell, LoadPhase.READING_WEIGHTS),
            loop.call_later(reading_seconds, tell, LoadPhase.ALLOCATING),
        )
        call = load_call(incarnation)
        try:
            await ask(self._server.endpoint, call.target, Ended, call.body, seconds=self._timeout_seconds)
            running = await self.find(incarnation.model.runner_key)
        except Answer as error:
            raise await self._failure(error, name) from error
        finally:
            for timer in timers:
                timer.cancel()
        if running is None:
            raise ModelLoadFailed(f'Ollama let go of "{name}" as soon as it had loaded it; try again.')
        tell(LoadPhase.READY)
        return running, self._clock.monotonic() - began_at

    async def unload(self, name: str) -> bool:
        """Has the server let go of a model; whether it has, or is gone itself. Raises nothing."""
        call, key = unload_call(name), self._catalog.runner_key(name)
        deadline = self._clock.monotonic() + UNLOAD_SECONDS
        try:
            await ask(self._server.endpoint, call.target, Ended, call.body)
            while await self.find(key) is not None:
                if self._clock.monotonic() >= deadline:
                    _log.warning("ollama keeps a model that others use", extra=fields(model=name))
                    return False
                await asyncio.sleep(UNLOAD_LOOK_SECONDS)
        except Answer as error:
            _log.warning("unload not confirmed", extra=fields(model=name, problem=quoted(str(error))))
            await self._server.failed()
            return isinstance(error, ConnectionBroken) and self._server.state is not EngineState.READY
        return True

    async def give_back(self, incarnation: Incarnation) -> None:
        """Leaves a model to those who had it in memory before. Raises nothing."""
        call = give_back_call(incarnation)
        try:
            await ask(self._server.endpoint, call.target, Ended, call.body)
        except Answer as error:
            name = incarnation.model.name
            _log.warning("a model was not given back", extra=fields(model=name, problem=quoted(str(error))))

    async def was_there(self, incarnation: Incarnation) -> bool:
        """Whether it is in memory with this context, so that a load changes nothing. Raises nothing."""
        try:
            running = await self.find(incarnation.model.runner_key)
        except Answer:
            return False  # the load will tell
        return running is not None and running.context_length == incarnation.context_tokens

    async def running(self) -> list[Running]:
        """What is in memory. Raises what ``ask`` raises."""
        return (await ask(self._server.endpoint, "/api/ps", RunningList)).models or []

    async def find(self, runner_key: str) -> Running | None:
        """The model that runs in this process, under whatever name. Raises what ``ask`` raises."""
        for running in await self.running():
            if self._catalog.runner_key(running.name) == runner_key:
                return running
        return None

    async def _failure(self, error: Exception, name: str) -> AutotuneError:
        if isinstance(error, Refused):
            if error.status == NOT_FOUND:
                return ModelNotFound(name, "", engine=PROGRAM)
            return ModelLoadFailed(
                f'Ollama cannot load "{name}": {quoted(error.message)}; choose a smaller context or model.',
                model=name,
            )
        if isinstance(error, ConnectionSilent):
            return ModelLoadFailed(
                f'Ollama did not load "{name}" within {self._timeout_seconds:g} seconds; raise '
                "ollama.load_timeout_seconds if it needs longer.",
                model=name,
            )
        cause = await self._server.failed()
        return self._server.unreachable(f"broke off the load ({cause or error})")
