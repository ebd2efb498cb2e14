from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from autotune_shim.app import App
from autotune_shim.http import BODY_LIMIT_BYTES
from autotune_shim.server import bind, make_server, serve

from tests.shim.scripted import CHAT, PATIENCE_SECONDS, Pause, ScriptedClient, finished, started, text

STREAM = json.dumps({**CHAT, "stream": True}).encode()


@asynccontextmanager
async def serving(client: ScriptedClient) -> AsyncIterator[int]:
    """The real HTTP server around a scripted daemon; yields its port."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[ScriptedClient]:
        yield client

    server = make_server(App(opened))
    with bind("127.0.0.1", 0) as listener:
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([listener])
        try:
            yield listener.getsockname()[1]
        finally:
            await server.shutdown([listener])


def request_bytes(body: bytes) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def test_it_says_where_it_serves(capsys):
    async with serving(ScriptedClient()) as port:
        assert (
            capsys.readouterr().err
            == f"Serving OpenAI's API at http://127.0.0.1:{port}/v1 (stop with Ctrl-C).\n"
        )


async def test_a_connection_serves_one_request_after_another():
    client = ScriptedClient([started(), text("Hello"), finished()])
    async with serving(client) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for _ in range(3):
            whole = await http.post("/v1/chat/completions", json=CHAT)
            assert whole.json()["choices"][0]["message"]["content"] == "Hello"
            streamed = await http.post("/v1/chat/completions", content=STREAM)
            assert streamed.text.endswith("data: [DONE]\n\n")
            assert (await http.post("/v1/chat/completions", content=b"{")).status_code == 400
    assert len(client.requests) == 6


async def test_small_pieces_are_not_held_back(monkeypatch):
    options: list[int] = []
    pause = Pause()
    client = ScriptedClient([started(), text("Once"), pause, finished()])
    async with serving(client) as port:
        made = asyncio.selector_events._SelectorSocketTransport.__init__

        def record(self, loop, sock, *args, **named):
            made(self, loop, sock, *args, **named)
            options.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        monkeypatch.setattr(asyncio.selector_events._SelectorSocketTransport, "__init__", record)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes(STREAM))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert b"Once" in await reader.readuntil(b'"Once"')
        writer.close()
        await writer.wait_closed()
    assert options == [1, 1]


@pytest.mark.parametrize("body", [STREAM, json.dumps(CHAT).encode()], ids=["stream", "whole"])
async def test_a_closed_connection_ends_the_call(body):
    pause = Pause()
    client = ScriptedClient([started(), text("Once"), pause, finished()])
    async with serving(client) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes(body))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await pause.reached.wait()
            writer.close()
            await writer.wait_closed()
            await client.ended.wait()
    assert client.running == 0


async def test_a_large_body_is_refused_and_the_server_goes_on():
    client = ScriptedClient([started(), text("Hello"), finished()])

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(BODY_LIMIT_BYTES // 2**20 + 2):
            yield b" " * 2**20

    async with serving(client) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        refused = await http.post("/v1/chat/completions", content=endless())
        assert refused.status_code == 413
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_garbage_does_not_stop_it():
    async with serving(ScriptedClient([started(), text("Hello"), finished()])) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x00\xffnonsense\r\n\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()
        await writer.wait_closed()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200


def test_a_taken_port_is_told_in_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            serve(port=port)
    assert caught.value.code == (
        f"Port {port} on 127.0.0.1 is taken; stop the program that has it, or choose another with --port."
    )


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [
        ("127.0.0.1", 65536, "There is no port 65536; choose one from 0 to 65535 with --port."),
        ("not a host", 0, '"not a host" is not an address to listen on; try --host 127.0.0.1.'),
        ("192.0.2.1", 0, "Cannot listen on 192.0.2.1 port 0: Cannot assign requested address."),
    ],
)
def test_a_place_that_cannot_be_had_is_told_in_one_sentence(host, port, sentence):
    with pytest.raises(SystemExit) as caught:
        serve(host=host, port=port)
    assert caught.value.code == sentence


def test_a_daemon_that_cannot_be_reached_is_told_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit) as caught:
        serve(port=0, address="tcp:1.2.3.4")
    assert caught.value.code.startswith('The address "tcp:1.2.3.4" is not one that autotune knows;')
