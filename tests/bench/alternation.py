"""Two applications of one model on Ollama: one sets a context, the other does not.

Ollama compares what a request asks for with what is loaded, so that such a pair has it load the model again
and again. Both programs ask two doubles in turns: one straight, one through the daemon. A double loads the
pocket model into a process as the original does, in a fraction of the time that a model of use takes: what
counts is how often.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from tests.bench import processes
from tests.bench.house import Open, opened
from tests.bench.raw import Raw, address_of
from tests.bench.report import Row, median, p99
from tests.engine_house import MODELS
from tests.fakes.ollama.running import RunningOllama, running_ollama

ROUNDS = 25
"""Each program asks once in a round, on each way."""
CONTEXT_TOKENS = 2048
REPLY_TOKENS = 8
QUESTION = "What is the capital of France?"

Ask = Callable[[], Awaitable[object]]


def measure() -> list[Row]:
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    with processes.home() as folder:
        async with running_ollama(folder) as alone, opened(engines=("ollama",)) as everything:
            return await _alternate(alone, everything)


async def _alternate(alone: RunningOllama, everything: Open) -> list[Row]:
    ways = {"straight to Ollama": _straight(alone), "through the daemon": _through(everything)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for program in range(2):
            for way, programs in ways.items():
                started = time.perf_counter()
                await programs[program]()
                seconds[way].append(time.perf_counter() - started)
    pages = await alone.page(), await everything.house.ollama.page()
    requests = 2 * ROUNDS
    return [
        row
        for (way, taken), page in zip(seconds.items(), pages, strict=True)
        for row in (
            Row(f"{way}: reloads in {requests} requests", page["reloads"], ""),
            Row(f"{way}: time of a request, median", 1000 * median(taken), "ms"),
            Row(f"{way}: time of a request, p99", 1000 * p99(taken), "ms"),
        )
    ]


def _straight(ollama: RunningOllama) -> tuple[Ask, Ask]:
    """The programs as they ask Ollama itself."""
    raws = [
        Raw(address=address_of(ollama.url), target="/api/chat", body=_body(options))
        for options in ({"num_ctx": CONTEXT_TOKENS}, {})
    ]
    return (lambda: asyncio.to_thread(raws[0].ask), lambda: asyncio.to_thread(raws[1].ask))


def _body(options: dict[str, int]) -> bytes:
    return json.dumps(
        {
            "model": MODELS["ollama"],
            "messages": [{"role": "user", "content": QUESTION}],
            "options": {"temperature": 0, "num_predict": REPLY_TOKENS, **options},
        }
    ).encode()


def _through(everything: Open) -> tuple[Ask, Ask]:
    """The same programs as they ask the daemon."""

    def ask(context_tokens: int | None) -> Awaitable[object]:
        return everything.client.chat(
            QUESTION,
            MODELS["ollama"],
            engine="ollama",
            temperature=0,
            max_reply_tokens=REPLY_TOKENS,
            context_tokens=context_tokens,
        )

    return (lambda: ask(CONTEXT_TOKENS), lambda: ask(None))
