"""How many tokens a second one stream can carry when the engine is not the limit."""

from __future__ import annotations

import asyncio
import socket
import time

import autotune
from autotune.v1 import chat_pb2, inference_service_pb2

from tests.bench import processes
from tests.bench.http import body, post
from tests.bench.report import Row, median
from tests.bench.worker_client import attach

TOKENS = 100_000
ROUNDS = 5


def measure() -> list[Row]:
    with (
        processes.home() as folder,
        processes.daemon(folder, str(TOKENS), module="tests.bench.fast_daemon"),
        processes.shim(folder) as (_, port),
    ):
        worker = folder / "fast.sock"
        address = f"unix:{folder / 'run' / 'autotuned.sock'}"
        asyncio.run(_grpc_rate(address))  # loads the model
        rates: dict[str, list[float]] = {"adapter": [], "grpc": [], "shim": []}
        for _ in range(ROUNDS):
            rates["adapter"].append(asyncio.run(_adapter_rate(worker)))
            rates["grpc"].append(asyncio.run(_grpc_rate(address)))
            rates["shim"].append(_shim_rate(port))
    return [
        Row("worker and adapter alone", median(rates["adapter"]), "tokens/s"),
        Row("through the daemon, on gRPC", median(rates["grpc"]), "tokens/s"),
        Row("through the shim, on HTTP", median(rates["shim"]), "tokens/s", 20_000, at_least=True),
    ]


async def _adapter_rate(worker) -> float:
    from autotuned.core.chat import ChatInput, GenerationRequest, Message, Role, TextPart
    from autotuned.core.generation import TextDelta

    request = GenerationRequest(model="pocket", input=ChatInput((Message(Role.USER, (TextPart("Go."),)),)))
    started = time.perf_counter()
    characters = 0
    async for event in attach(worker).generate(request, "bench"):
        if isinstance(event, TextDelta):
            characters += len(event.text)
    return _rate(characters, started)


async def _grpc_rate(address: str) -> float:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="Go.")])
    request = inference_service_pb2.GenerateRequest(chat=chat_pb2.ChatInput(messages=[message]))
    characters = 0
    async with autotune.AsyncClient(address, client_name="bench") as client:
        started = time.perf_counter()
        async for response in client.generate(request):
            characters += len(response.delta.text)
    return _rate(characters, started)


def _shim_rate(port: int) -> float:
    """Every token must arrive: what is counted is the text itself."""
    started = time.perf_counter()
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        post(connection, body(TOKENS), close=True)
        while data := connection.recv(1 << 20):
            received += data
    seconds = time.perf_counter() - started
    assert b"data: [DONE]" in received
    words = received.count(b" word")
    assert words == TOKENS, f"{words} of {TOKENS} tokens arrived"
    return TOKENS / seconds


def _rate(characters: int, started: float) -> float:
    seconds = time.perf_counter() - started
    assert characters == TOKENS * len(" word"), f"{characters} characters arrived"
    return TOKENS / seconds
