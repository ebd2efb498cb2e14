"""Requests to a llama.cpp worker: those of every worker, with what its errors mean.

``model`` makes one for each incarnation. Invariant: that of ``worker_requests``.
"""

from __future__ import annotations

from autotuned.core.errors import AutotuneError
from autotuned.engines import worker_requests
from autotuned.engines.chat_events import ProblemData
from autotuned.engines.llamacpp.body import Call
from autotuned.engines.llamacpp.log import WorkerLog
from autotuned.engines.llamacpp.refusals import quoted, refusal
from autotuned.engines.process import WorkerProcess

OK = worker_requests.OK


class WorkerRequests(worker_requests.WorkerRequests):
    """Sends requests to a worker, each on a connection of its own."""

    def __init__(
        self,
        *,
        worker: WorkerProcess[WorkerLog],
        model_id: str,
        incarnation_id: str,
        context_tokens: int,
        silence_seconds: float,
    ) -> None:
        super().__init__(
            worker=worker,
            model_id=model_id,
            incarnation_id=incarnation_id,
            silence_seconds=silence_seconds,
        )
        self._context_tokens = context_tokens

    def refusal(self, problem: ProblemData, call: worker_requests.Call) -> AutotuneError:
        """What an error of the server means to the client."""
        sent = Call(call.target, call.body, call.method)
        error = refusal(problem, sent, model_id=self.model_id, context_tokens=self._context_tokens)
        return error or self.unreachable(f"failed ({quoted(problem.message)})")
