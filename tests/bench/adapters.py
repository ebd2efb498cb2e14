"""What the daemon adds to the time to first token on each engine.

The same tiny prompt, which the engine has cached, goes to the same server or worker twice in each round:
straight from the leanest client, and through the daemon's gRPC. Which comes first is drawn anew each time,
so that whatever else the machine does meets both alike. Ollama and LM Studio are doubles, which run the
pocket model with llama.cpp: their figures are of the daemon, not of the programs that they stand for.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import aclosing

import autotune
import msgspec
from autotune.v1 import inference_service_pb2

from autotuned.engines.mlx import protocol
from tests.bench.house import TITLES, Open, opened
from tests.bench.raw import Raw, address_of
from tests.bench.report import Row, median, p99
from tests.engine_house import ENGINES, MODELS

PAIRS = 200
SLOW_PAIRS = 100
SLOW = ("mlx", "gpu")
"""Engines that are asked ``SLOW_PAIRS`` times: MLX computes on a CPU here."""
WARM_UP_PAIRS = 10
REPLY_TOKENS = 4
QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]


def measure() -> list[Row]:
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    rows = []
    for engine in ENGINES:
        async with opened(engines=(engine,)) as everything:
            rows += await _engine_rows(engine, everything)
    return rows


async def _engine_rows(engine: str, everything: Open) -> list[Row]:
    request = autotune.chat_request(
        QUESTION, model=MODELS[engine], engine=engine, temperature=0, max_reply_tokens=REPLY_TOKENS
    )
    await through_seconds(everything.client, request)  # loads the model
    raw = await raw_of(engine, everything)
    direct: list[float] = []
    through: list[float] = []

    async def ask_directly() -> None:
        direct.append(await asyncio.to_thread(raw.ask))

    async def ask_the_daemon() -> None:
        through.append(await through_seconds(everything.client, request))

    both = [ask_directly, ask_the_daemon]
    for number in range(WARM_UP_PAIRS + (SLOW_PAIRS if engine in SLOW else PAIRS)):
        if number == WARM_UP_PAIRS:
            direct.clear()
            through.clear()
        random.shuffle(both)
        for ask in both:
            await ask()
    return rows_of(TITLES[engine], direct, through)


def rows_of(title: str, direct: list[float], through: list[float]) -> list[Row]:
    """The rows of one engine. Medians of both, and what the daemon adds at the median and the 99th percentile."""
    return [
        Row(f"{title}: direct, median of {len(direct)}", 1000 * median(direct), "ms"),
        Row(f"{title}: through the daemon, median", 1000 * median(through), "ms"),
        Row(f"{title}: added, median", 1000 * (median(through) - median(direct)), "ms"),
        Row(f"{title}: added, p99", 1000 * (p99(through) - p99(direct)), "ms"),
    ]


async def through_seconds(
    client: autotune.AsyncClient, request: inference_service_pb2.GenerateRequest
) -> float:
    """Seconds to the first piece of text on gRPC; reads the answer to its end."""
    started = time.perf_counter()
    first = 0.0
    async with aclosing(client.generate(request)) as events:
        async for event in events:
            if not first and event.HasField("delta"):
                first = time.perf_counter() - started
    return first


async def raw_of(engine: str, everything: Open) -> Raw:
    """The request that the engine's adapter sends, to the server that it sends it to."""
    runtime, house = everything.folder / "run", everything.house
    match engine:
        case "llamacpp":
            worker = next(runtime.glob("w-*.sock"))
            return Raw(address=worker, target="/v1/chat/completions", body=chat_body("pocket"))
        case "mlx":
            worker = next(runtime.glob("m-*.sock"))
            return Raw(address=worker, target=protocol.GENERATE_TARGET, body=worker_body())
        case "ollama":
            # The very body of the adapter: another context would have the server load the model again.
            last = (await house.ollama.page())["bodies"][-1]
            body = json.dumps(last["body"]).encode()
            return Raw(address=address_of(house.ollama.url), target=last["path"], body=body)
        case "lmstudio":
            [instance] = (await house.lmstudio.state())["instances"]
            return Raw(
                address=address_of(house.lmstudio.url),
                target="/v1/chat/completions",
                body=chat_body(instance["id"]),
            )
        case _:
            return Raw(
                address=address_of(house.places[engine].server.url),
                target="/v1/chat/completions",
                body=chat_body(MODELS[engine]),
            )


def chat_body(model: str) -> bytes:
    """OpenAI's JSON of the question."""
    return json.dumps(
        {
            "model": model,
            "messages": MESSAGES,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "max_tokens": REPLY_TOKENS,
        }
    ).encode()


def worker_body() -> bytes:
    """The same for a worker of MLX."""
    call = protocol.GenerateCall(
        prompt=protocol.PromptData(messages=MESSAGES),
        conversation="bench",
        sampling=protocol.SamplingData(temperature=0),
        max_tokens=REPLY_TOKENS,
    )
    return msgspec.json.encode(call)
