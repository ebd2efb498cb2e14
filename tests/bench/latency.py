"""What the daemon and the shim add to the time to first token, and where.

Every path reaches the same worker process with the same prompt, in turns, so that whatever else the
machine does meets all of them alike. The worker driven directly on its socket is the baseline.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import autotune
from autotune.v1 import chat_pb2, inference_service_pb2

from autotuned.core.chat import ChatInput, GenerationRequest, Message, Role, Sampling, TextPart
from autotuned.core.generation import TextDelta
from autotuned.core.ports import LoadedModel
from tests.bench import processes
from tests.bench.http import body, first_content_seconds
from tests.bench.report import Row, median, p99
from tests.bench.worker_client import attach

ROUNDS = 500
WARM_UP_ROUNDS = 30
REPLY_TOKENS = 4
QUESTION = "What is the capital of France?"

Path_ = Callable[[], Awaitable[float]]


def measure() -> list[Row]:
    with (
        processes.home() as folder,
        processes.daemon(folder) as _,
        processes.shim(folder) as (_, port),
    ):
        return asyncio.run(_measure(folder, port))


async def _measure(folder: Path, port: int) -> list[Row]:
    address = f"unix:{folder / 'run' / 'autotuned.sock'}"
    async with autotune.AsyncClient(address, client_name="bench") as client:
        await _grpc_seconds(client)  # loads the model
        worker = next((folder / "run").glob("w-*.sock"))
        model = attach(worker)
        shim = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port))
        shim.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        paths: dict[str, Path_] = {
            "direct": lambda: asyncio.to_thread(_direct_seconds, worker),
            "adapter": lambda: _adapter_seconds(model),
            "echo": lambda: _echo_seconds(client),
            "grpc": lambda: _grpc_seconds(client),
            "shim": lambda: asyncio.to_thread(first_content_seconds, shim, body(REPLY_TOKENS), close=False),
        }
        seconds = await _take_turns(paths)
        shim.close()
    return _rows(seconds)


async def _take_turns(paths: dict[str, Path_]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    names = list(paths)
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        random.shuffle(names)
        for name in names:
            taken = await paths[name]()
            if number >= WARM_UP_ROUNDS:
                seconds[name].append(taken)
    return seconds


def _rows(seconds: dict[str, list[float]]) -> list[Row]:
    middle = {name: 1000 * median(values) for name, values in seconds.items()}
    added = middle["shim"] - middle["direct"]
    hop = middle["adapter"] - middle["direct"]
    echo = middle["echo"]
    return [
        Row("direct to the worker's socket, median", middle["direct"], "ms"),
        Row("through shim, daemon and engine, median", middle["shim"], "ms"),
        Row("added, median", added, "ms", 2),
        Row("added, p99", 1000 * (p99(seconds["shim"]) - p99(seconds["direct"])), "ms", 8),
        Row("of it the shim", middle["shim"] - middle["grpc"], "ms", 0.6),
        Row("of it gRPC (an empty call of the daemon)", echo, "ms", 0.7),
        Row("of it the daemon", middle["grpc"] - middle["adapter"] - echo, "ms", 0.4),
        Row("of it the hop to the engine", hop, "ms", 0.3),
    ]


def _direct_seconds(worker: Path) -> float:
    with socket.socket(socket.AF_UNIX) as connection:
        started = time.perf_counter()
        connection.connect(str(worker))
        connecting = time.perf_counter() - started
        content = body(REPLY_TOKENS, return_progress=True, stream_options={"include_usage": True})
        return connecting + first_content_seconds(connection, content, close=True)


async def _adapter_seconds(model: LoadedModel) -> float:
    request = GenerationRequest(
        model="pocket",
        input=ChatInput((Message(Role.USER, (TextPart(QUESTION),)),)),
        sampling=Sampling(temperature=0.0),
        max_reply_tokens=REPLY_TOKENS,
    )
    started = time.perf_counter()
    first = 0.0
    async for event in model.generate(request, "bench"):
        if not first and isinstance(event, TextDelta):
            first = time.perf_counter() - started
    return first


async def _echo_seconds(client: autotune.AsyncClient) -> float:
    started = time.perf_counter()
    await client.info()
    return time.perf_counter() - started


async def _grpc_seconds(client: autotune.AsyncClient) -> float:
    request = inference_service_pb2.GenerateRequest(
        model="pocket",
        chat=chat_pb2.ChatInput(
            messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=QUESTION)])]
        ),
        sampling=inference_service_pb2.Sampling(temperature=0),
        max_reply_tokens=REPLY_TOKENS,
    )
    started = time.perf_counter()
    first = 0.0
    async for response in client.generate(request):
        if not first and response.HasField("delta"):
            first = time.perf_counter() - started
    return first
