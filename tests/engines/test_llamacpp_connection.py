"""HTTP over a worker's socket, against servers that behave and servers that do not."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import (
    ConnectionBroken,
    ConnectionSilent,
    EventSplitter,
    Exchange,
    fetch,
)
from tests.engines.processes import descriptors, until
from tests.engines.scripted_server import HANG, HEAD, LAST_CHUNK, chunk, event, plain, scripted_server


@pytest.fixture
def path(paths):
    return paths.runtime / "server.sock"


async def body_of(path, *, silence_seconds=10.0):
    exchange = Exchange(
        endpoint=Endpoint.unix(path), method="POST", target="/x", body=b"{}", silence_seconds=silence_seconds
    )
    async with exchange:
        status = await exchange.status()
        pieces = []
        while data := await exchange.read():
            pieces.append(data)
    return status, b"".join(pieces)


async def test_a_request_is_one_http_message_that_closes(path):
    async with scripted_server(path, [plain(200, b"{}")]) as server:
        assert await fetch(Endpoint.unix(path), "POST", "/tokenize", b'{"a":1}', silence_seconds=10.0) == (
            200,
            b"{}",
        )
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /tokenize HTTP/1.1\r\n")
    assert b"\r\nConnection: close\r\n" in head
    assert b"\r\nContent-Length: 7" in head
    assert body == b'{"a":1}'


async def test_a_large_request_arrives_whole(path):
    body = b'"' + b"x" * 20_000_000 + b'"'
    async with scripted_server(path, [plain(200, b"ok")]) as server:
        assert await fetch(Endpoint.unix(path), "POST", "/", body, silence_seconds=10.0) == (200, b"ok")
    assert server.requests[0].endswith(body)


async def test_an_answer_cut_into_single_bytes_is_the_same(path):
    whole = HEAD + event(b"one") + chunk(b"data: t") + chunk(b"wo\n\ndata: three\n\n") + LAST_CHUNK
    async with scripted_server(path, [bytes([byte]) for byte in whole]):
        status, body = await body_of(path)
    assert status == 200
    assert EventSplitter().feed(body) == [b"one", b"two", b"three"]


async def test_a_status_other_than_success_is_told_with_its_body(path):
    async with scripted_server(path, [plain(503, b"loading")]):
        assert await fetch(Endpoint.unix(path), "GET", "/health", silence_seconds=10.0) == (503, b"loading")


@pytest.mark.parametrize(
    "script",
    [
        [b"\x00\x01 garbage\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n"],
        [HEAD],
        [HEAD + event(b"one")],
        [HEAD + b"zz\r\nnot a length\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"],
        [b"x"],
    ],
    ids=["garbage", "half a head", "no body", "no end", "bad chunk", "short", "one byte"],
)
async def test_a_broken_answer_is_an_error(path, script):
    async with scripted_server(path, script):
        with pytest.raises(ConnectionBroken):
            await body_of(path)


async def test_nobody_there_is_an_error(path):
    with pytest.raises(ConnectionBroken):
        await body_of(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(ConnectionBroken):
        await body_of(path)


@pytest.mark.parametrize("script", [[HANG], [HEAD, HANG], [HEAD, event(b"one"), HANG]])
async def test_silence_is_an_error(path, script):
    async with scripted_server(path, script) as server:
        with pytest.raises(ConnectionSilent, match=r"0\.05 seconds"):
            await body_of(path, silence_seconds=0.05)
        await until(lambda: server.connections_count == 0, "the connection is closed")


async def test_a_slow_answer_is_not_silence(path):
    async def trickle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        for _ in range(8):
            await asyncio.sleep(0.05)
            writer.write(event(b"more"))
        writer.write(LAST_CHUNK)
        writer.close()

    async with await asyncio.start_unix_server(trickle, path):
        _, body = await body_of(path, silence_seconds=0.2)
    assert len(EventSplitter().feed(body)) == 8


async def test_what_came_before_the_break_is_read_first(path):
    async with scripted_server(path, [HEAD + event(b"one")]):
        exchange = Exchange(
            endpoint=Endpoint.unix(path), method="POST", target="/x", body=b"{}", silence_seconds=10.0
        )
        async with exchange:
            assert await exchange.read() == b"data: one\n\n"
            with pytest.raises(ConnectionBroken):
                await exchange.read()


async def test_leaving_early_closes_the_connection(path):
    before = descriptors()
    async with scripted_server(path, [HEAD, event(b"one"), HANG]) as server:
        exchange = Exchange(
            endpoint=Endpoint.unix(path), method="POST", target="/x", body=b"{}", silence_seconds=10.0
        )
        async with exchange:
            await exchange.read()
            assert server.connections_count == 1
        exchange.close()
        await until(lambda: server.connections_count == 0, "the server sees the end")
    await until(lambda: descriptors() == before, "no descriptor is left")


async def test_cancelling_while_waiting_closes_the_connection(path):
    async with scripted_server(path, [HEAD, HANG]) as server:
        task = asyncio.create_task(body_of(path))
        await until(lambda: server.requests != [], "the request arrived")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.connections_count == 0, "the server sees the end")


@given(st.lists(st.binary(min_size=1, max_size=8).filter(lambda data: not {*b"\r\n"} & {*data})), st.data())
def test_events_are_the_same_however_they_are_cut(events, data):
    stream = b"".join(b"data: " + each + b"\n\n" for each in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    splitter = EventSplitter()
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[begin:end])
    assert found == events


def test_comments_and_other_fields_are_no_events():
    stream = b": ping\n\ndata: one\n\nretry: 5\n\ndata: two\n\ndata: unfinished"
    assert EventSplitter().feed(stream) == [b"one", b"two"]
