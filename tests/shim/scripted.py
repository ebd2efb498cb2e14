"""A scripted connection to the daemon, and HTTP calls on the application without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from autotune import ModelList
from autotune.v1 import daemon_service_pb2, model_pb2, plan_pb2, system_service_pb2
from autotune.v1 import inference_service_pb2 as wire
from autotune_shim.app import App
from autotune_shim.stream import Pace
from google.protobuf.duration_pb2 import Duration

PATIENCE_SECONDS = 10.0
AT_ONCE = Pace(header_grace_seconds=0.01, keep_alive_seconds=0.01)
CHAT: dict[str, Any] = {"model": "pocket", "messages": [{"role": "user", "content": "Hi"}]}


class Pause:
    """A place in a script where the daemon is silent until ``go`` is set."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()


Step = wire.GenerateResponse | Exception | Pause


class ScriptedClient:
    """Stands for ``autotune.AsyncClient``: plays its script for every request and keeps what it was asked."""

    def __init__(
        self,
        script: Iterable[Step] = (),
        failure: Exception | None = None,
        models: Iterable[model_pb2.Model] | None = None,
    ) -> None:
        self.script = list(script)
        self.models = None if models is None else list(models)
        self.failure = failure
        self.requests: list[wire.GenerateRequest] = []
        self.programs: list[str] = []
        self.running = 0
        self.ended = asyncio.Event()

    async def generate(
        self, request: wire.GenerateRequest, *, on_behalf_of: str = ""
    ) -> AsyncIterator[wire.GenerateResponse]:
        self.requests.append(request)
        self.programs.append(on_behalf_of)
        self.running += 1
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Pause):
                    step.reached.set()
                    await step.go.wait()
                else:
                    yield step
        finally:
            self.running -= 1
            self.ended.set()

    async def list_models(self) -> ModelList:
        self._fail()
        models = [await self.get_model("pocket")] if self.models is None else self.models
        return ModelList(models, "pocket")

    async def get_model(self, model: str) -> model_pb2.Model:
        self._fail()
        fit = plan_pb2.Fit(fit_class=plan_pb2.FIT_CLASS_SWAP_RISK, required_bytes=9, available_bytes=8)
        return model_pb2.Model(
            id=model, engine="llamacpp", state=model_pb2.MODEL_STATE_READY, size_bytes=7, fit=fit
        )

    async def info(self) -> daemon_service_pb2.GetInfoResponse:
        self._fail()
        return daemon_service_pb2.GetInfoResponse(version="0.1.0")

    async def snapshot(self) -> system_service_pb2.Snapshot:
        self._fail()
        return system_service_pb2.Snapshot(
            memory_total_bytes=8, active_requests_count=1, queued_requests_count=2
        )

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def queued(position: int) -> wire.GenerateResponse:
    return wire.GenerateResponse(queued=wire.Queued(position=position))


def started(request_id: str = "r1", *, counts: bool = True) -> wire.GenerateResponse:
    """``counts`` False: of an engine that tells them only at the end."""
    plan = plan_pb2.Plan(
        action=plan_pb2.PLAN_ACTION_REUSE,
        shape=plan_pb2.LoadShape(context_tokens=2048, slots_count=1),
        kv_cache_bytes=1024,
        footprint=plan_pb2.Footprint(total_bytes=5096, host_prompt_cache_bytes=1000),
        reasons=[plan_pb2.PlanReason(code="bucket", text="2,048 tokens hold prompt and reply.")],
    )
    return wire.GenerateResponse(
        started=wire.Started(
            request_id=request_id,
            model="pocket",
            engine="llamacpp",
            plan=plan,
            prompt_tokens=9 if counts else None,
            cached_tokens=4 if counts else None,
        )
    )


def text(
    piece: str, part_index: int = 0, logprobs: Iterable[wire.TokenLogprob] = ()
) -> wire.GenerateResponse:
    return wire.GenerateResponse(delta=wire.Delta(part_index=part_index, text=piece, logprobs=logprobs))


def reasoning(piece: str) -> wire.GenerateResponse:
    return wire.GenerateResponse(delta=wire.Delta(reasoning=piece))


def call(part_index: int, call_id: str = "", name: str = "", arguments: str = "") -> wire.GenerateResponse:
    fragment = wire.ToolCallFragment(id=call_id, name=name, arguments_json_fragment=arguments)
    return wire.GenerateResponse(delta=wire.Delta(part_index=part_index, tool_call=fragment))


def finished(
    reason: wire.FinishReason = wire.FINISH_REASON_STOP, *, cached_tokens: int = 4
) -> wire.GenerateResponse:
    return wire.GenerateResponse(
        finished=wire.Finished(
            finish_reason=reason,
            usage=wire.Usage(prompt_tokens=9, cached_tokens=cached_tokens, reply_tokens=3),
            timings=wire.Timings(
                time_to_first_token_duration=Duration(nanos=12_500_000),
                total_duration=Duration(seconds=1),
                decode_tokens_per_second=123.456,
            ),
        )
    )


def token(piece: str, logprob: float, **others: float) -> wire.TokenLogprob:
    return wire.TokenLogprob(
        token=piece,
        token_bytes=piece.encode(),
        logprob=logprob,
        alternatives=[
            wire.AlternativeLogprob(token=other, token_bytes=other.encode(), logprob=value)
            for other, value in others.items()
        ],
    )


class Call:
    """One HTTP request on the application, as a server would make it."""

    def __init__(
        self, app: App, client: ScriptedClient, method: str, path: str, headers: dict[str, str]
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._news = asyncio.Condition()
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "state": {"client": client},
        }
        self.task = asyncio.create_task(app(scope, self._inbox.get, self._send))

    def feed(self, body: bytes, *, more: bool = False) -> None:
        self._inbox.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def hang_up(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    async def until(self, expected: bytes) -> None:
        """Waits until the answer holds ``expected``."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: expected in self.body)

    async def done(self) -> Call:
        ended, _ = await asyncio.wait([self.task], timeout=PATIENCE_SECONDS)
        self.task.cancel()
        assert ended, "the request never ended"
        await self.task
        return self

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of the stream's events, in order."""
        lines = [line for line in self.body.decode().split("\n\n") if line.startswith("data: ")]
        values = [line.removeprefix("data: ") for line in lines]
        return [value if value == "[DONE]" else json.loads(value) for value in values]

    async def _send(self, message: Any) -> None:
        assert not self.complete, "something was sent after the end"
        if message["type"] == "http.response.start":
            assert not self.status, "the headers were sent twice"
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            assert self.status, "a body was sent before the headers"
            self.body += message["body"]
            self.complete = not message.get("more_body", False)
        async with self._news:
            self._news.notify_all()


def begin(
    client: ScriptedClient,
    body: object = None,
    *,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    pace: Pace | None = None,
) -> Call:
    """Starts a request; ``body`` is sent as JSON unless it is bytes, and not at all when it is None."""
    call = Call(App(lambda: _opened(client), pace), client, method, path, headers or {})
    if body is not None:
        call.feed(body if isinstance(body, bytes) else json.dumps(body).encode())
    return call


async def post(client: ScriptedClient, body: object, **options: Any) -> Call:
    """A request, to its end."""
    return await begin(client, body, **options).done()


async def get(client: ScriptedClient, path: str, method: str = "GET") -> Call:
    """A request without a body, to its end."""
    return await begin(client, b"", method=method, path=path).done()


@asynccontextmanager
async def _opened(client: ScriptedClient) -> AsyncIterator[Any]:
    yield client
