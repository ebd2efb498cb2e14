"""What the clients of the soak do: random requests over gRPC and HTTP, and how each of them ended.

Invariant: whatever happens to a request is counted once, under a name: ``answered``, ``cancelled``,
a reason of ``autotune.errors`` or a code of the HTTP server, or ``untyped`` with what it was.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import autotune
import httpx
from autotune.errors import AutotuneError, Internal
from autotune.requests import load_model_request
from autotune.v1 import chat_pb2, inference_service_pb2

COPIES = tuple(f"copy-{number}" for number in range(7))
"""So many that the pauses between the crashes of one model leave most requests their answer."""
MODELS = ("pocket", *COPIES)
DAMAGED_MODEL = "cut"
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
QUESTIONS = ("What is the capital of France?", "What is a KV cache?", "Count to thirty.", "Tell me a story.")
LONGEST_PROMPT_WORDS = 3000
CANCEL_WITHIN_SECONDS = 0.3
TRY_AGAIN_WITHIN_SECONDS = 0.4
# A request that is not over by then hangs: nothing here takes so long, whatever chaos does.
HANGS_AFTER_SECONDS = 60.0


class Tally:
    """How requests ended."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.untyped: Counter[str] = Counter()

    async def count(self, action: Callable[[], Awaitable[str]]) -> None:
        outcome = ""
        try:
            async with asyncio.timeout(HANGS_AFTER_SECONDS):
                outcome = await action()
        except Internal as error:
            self._count_untyped(error)
        except AutotuneError as error:
            self.outcomes[error.reason] += 1
            outcome = error.reason
        except Exception as error:  # noqa: BLE001  # what it is, is what the soak is there to find
            self._count_untyped(error)
        else:
            self.outcomes[outcome] += 1
        if "queue_full" in outcome.lower():
            await asyncio.sleep(random.uniform(0, TRY_AGAIN_WITHIN_SECONDS))

    def _count_untyped(self, error: Exception) -> None:
        self.outcomes["untyped"] += 1
        self.untyped[f"{type(error).__name__}: {error}"] += 1


def some_model() -> str:
    return random.choice(MODELS)


def long_text() -> str:
    return " ".join(f"word{number}" for number in range(random.randrange(200, LONGEST_PROMPT_WORDS)))


class GrpcClient:
    """One program that uses the client library."""

    def __init__(self, client: autotune.AsyncClient) -> None:
        self._client = client
        self.actions = (
            self.ask,
            self.ask,
            self.cancel,
            self.cancel,
            self.long_prompt,
            self.call_a_tool,
            self.wrong_name,
            self.damaged_model,
            self.wrong_value,
            self.late,
            self.load,
        )

    async def ask(self) -> str:
        await self._answer(autotune.chat_request(random.choice(QUESTIONS), model=some_model()))
        return "answered"

    async def long_prompt(self) -> str:
        await self._answer(autotune.chat_request(long_text(), model=some_model(), max_reply_tokens=20))
        return "answered"

    async def cancel(self) -> str:
        question = random.choice((*QUESTIONS, long_text()))
        try:
            async with asyncio.timeout(random.uniform(0, CANCEL_WITHIN_SECONDS)):
                await self._answer(autotune.chat_request(question, model=some_model()))
        except TimeoutError:
            return "cancelled"
        return "answered"

    async def call_a_tool(self) -> str:
        request = autotune.chat_request("What is the weather in Porto?", model=some_model(), temperature=0.0)
        request.chat.tools.add(
            name=WEATHER["name"],
            description=WEATHER["description"],
            parameters_json=json.dumps(WEATHER["parameters"]),
        )
        request.chat.tool_choice.mode = chat_pb2.ToolChoice.MODE_REQUIRED
        await self._answer(request)
        return "answered"

    async def wrong_name(self) -> str:
        await self._answer(autotune.chat_request("Hello", model="nobody"))
        return "answered"

    async def damaged_model(self) -> str:
        await self._answer(autotune.chat_request("Hello", model=DAMAGED_MODEL))
        return "answered"

    async def wrong_value(self) -> str:
        await self._answer(autotune.chat_request("Hello", temperature=float("nan")))
        return "answered"

    async def late(self) -> str:
        """A deadline of the caller's that passes anywhere."""
        await self._answer(
            autotune.chat_request("Tell me a story.", model=some_model()),
            timeout_seconds=random.uniform(0.001, CANCEL_WITHIN_SECONDS),
        )
        return "answered"

    async def load(self) -> str:
        request = load_model_request(some_model(), context_tokens=random.choice((256, 2048, 8192)))
        async with aclosing(self._client.load_model(request)) as events:
            async for _ in events:
                pass
        return "loaded"

    async def _answer(
        self, request: inference_service_pb2.GenerateRequest, timeout_seconds: float | None = None
    ) -> None:
        kind = None
        async with aclosing(self._client.generate(request, timeout_seconds)) as events:
            async for event in events:
                kind = event.WhichOneof("event")
        if kind != "finished":
            raise RuntimeError(f"a stream ended with {kind}")


class HttpClient:
    """One program that uses the HTTP server."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self.actions = (
            self.ask,
            self.stream,
            self.stream,
            self.disconnect,
            self.disconnect,
            self.long_prompt,
            self.call_a_tool,
            self.wrong_name,
            self.wrong_value,
            self.models,
        )

    async def ask(self) -> str:
        return await self._whole(messages(random.choice(QUESTIONS)))

    async def long_prompt(self) -> str:
        return await self._whole({**messages(long_text()), "max_tokens": 20})

    async def stream(self) -> str:
        return await self._streamed(messages(random.choice(QUESTIONS)))

    async def disconnect(self) -> str:
        try:
            async with asyncio.timeout(random.uniform(0, CANCEL_WITHIN_SECONDS)):
                return await self._streamed(messages(random.choice((*QUESTIONS, long_text()))))
        except TimeoutError:
            return "cancelled"

    async def call_a_tool(self) -> str:
        tools = [{"type": "function", "function": WEATHER}]
        return await self._whole({**messages("What is the weather in Porto?"), "tools": tools})

    async def wrong_name(self) -> str:
        return await self._whole({**messages("Hello"), "model": "nobody"})

    async def wrong_value(self) -> str:
        return await self._whole({**messages("Hello"), "temperature": "warm"})

    async def models(self) -> str:
        return outcome_of(await self._http.get("/v1/models"))

    async def _whole(self, body: dict[str, object]) -> str:
        return outcome_of(await self._http.post("/v1/chat/completions", json=body))

    async def _streamed(self, body: dict[str, object]) -> str:
        async with self._http.stream(
            "POST", "/v1/chat/completions", json={**body, "stream": True}
        ) as response:
            if not response.is_success:
                await response.aread()
                return outcome_of(response)
            last = ""
            async for line in response.aiter_lines():
                if line.startswith("data: {") and "error" in (event := json.loads(line[6:])):
                    return code_of(event["error"])
                last = line or last
        if last != "data: [DONE]":
            raise RuntimeError(f"a stream ended with {last[:80]!r}")
        return "answered"


def messages(question: str) -> dict[str, object]:
    return {"model": some_model(), "messages": [{"role": "user", "content": question}]}


def outcome_of(response: httpx.Response) -> str:
    """``answered`` or the code of the error. Raises RuntimeError for a body that is neither."""
    content = response.json()
    return "answered" if response.is_success else code_of(content["error"])


def code_of(error: dict[str, str]) -> str:
    """The code of the HTTP server's error. Raises RuntimeError for one that nobody foresaw."""
    if error["code"] == "internal_error":
        raise RuntimeError(f"HTTP: {error['message']}")
    return f"HTTP {error['code']}"
