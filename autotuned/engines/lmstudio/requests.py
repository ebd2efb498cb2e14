"""Requests to one instance: answers that stream, and what their failures mean.

``model`` makes one for each incarnation. Invariants: nothing is sent to an instance that is not known to be
there, because LM Studio would load the model anew, in another shape; a request that ends in any other way
than with its answer raises one of the core's errors.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from http import HTTPStatus

from autotuned.core.errors import AutotuneError, EngineUnreachable
from autotuned.core.generation import EngineEvent
from autotuned.engines.chat_events import EngineProblem, StreamReader, UnreadableStream, problem_in
from autotuned.engines.http import ConnectionBroken, ConnectionSilent, EventSplitter, Exchange
from autotuned.engines.lmstudio.body import Call
from autotuned.engines.lmstudio.instances import Instances, Use
from autotuned.engines.lmstudio.refusals import refusal
from autotuned.engines.lmstudio.rest import Rest, ServerProblem, TokenRefused, quoted


class InstanceRequests:
    """Sends requests to an instance, each on a connection of its own."""

    def __init__(
        self,
        *,
        rest: Rest,
        instances: Instances,
        use: Use,
        model_id: str,
        incarnation_id: str,
        context_tokens: int,
        silence_seconds: float,
    ) -> None:
        self._rest = rest
        self._instances = instances
        self._use = use
        self._model_id = model_id
        self._incarnation_id = incarnation_id
        self._context_tokens = context_tokens
        self._silence_seconds = silence_seconds

    async def stream(self, call: Call, reader: StreamReader) -> AsyncGenerator[EngineEvent, None]:
        """The events of an answer; closing it closes the connection, which stops the engine."""
        await self._check_there()
        splitter = EventSplitter()
        status = 0
        try:
            async with self._exchange(call) as exchange:
                if (status := await exchange.status()) != HTTPStatus.OK:
                    await _raise_problem(exchange, status)
                while data := await exchange.read():
                    for block in splitter.feed(data):
                        for event in reader.feed(block):
                            yield event
                        if reader.finished:
                            return
        except (ConnectionBroken, ConnectionSilent, EngineProblem, UnreadableStream) as error:
            failure = await self._failure(error, call)
            if isinstance(failure, EngineUnreachable) and isinstance(error, ConnectionBroken) and not status:
                failure.served = False
            raise failure from error
        raise self._unreachable("ended its answer too early")

    async def _check_there(self) -> None:
        """Raises ``EngineUnreachable`` where the instance, or the server, is gone."""
        problem = ""
        if not self._use.is_over:
            try:
                await self._instances.look_if_stale(self._rest)
            except ServerProblem as error:
                problem = f"cannot be asked: {error}"
        if self._use.is_over:
            problem = f"is gone: {self._use.cause}"
        if problem:
            failure = self._unreachable(problem)
            failure.served = False
            raise failure

    def _exchange(self, call: Call) -> Exchange:
        return Exchange(
            endpoint=self._rest.endpoint,
            method="POST",
            target=call.target,
            body=call.body,
            silence_seconds=self._silence_seconds,
        )

    async def _failure(self, error: Exception, call: Call) -> AutotuneError:
        """What a request that could not be carried through has to say."""
        if isinstance(error, EngineProblem):
            problem = error.problem
            if problem.code == HTTPStatus.UNAUTHORIZED:
                return self._unreachable(f"cannot be asked: {TokenRefused()}")
            known = refusal(problem, call, model_id=self._model_id, context_tokens=self._context_tokens)
            return known or await self._lost(f"failed ({quoted(problem.message)})")
        if isinstance(error, UnreadableStream):
            return self._unreachable(f"sent an answer that cannot be read ({error})")
        if isinstance(error, ConnectionSilent):
            return self._unreachable(f"fell silent ({error})")
        return await self._lost(f"broke off its answer ({error})")

    async def _lost(self, what: str) -> EngineUnreachable:
        """The error, after a look whether the instance is gone, which then is said beside it."""
        try:
            await self._instances.look(self._rest)
        except ServerProblem as error:
            if not self._use.is_over:
                return self._unreachable(f"{what}, and cannot be asked: {error}")
        return self._unreachable(f"{what}: {self._use.cause}" if self._use.is_over else what)

    def _unreachable(self, what: str) -> EngineUnreachable:
        return EngineUnreachable(
            f'LM Studio\'s "{self._model_id}" {what}; send the request again.',
            model=self._model_id,
            incarnationId=self._incarnation_id,
        )


async def _raise_problem(exchange: Exchange, status: int) -> None:
    raise EngineProblem(problem_in(await exchange.read_all(), status))
