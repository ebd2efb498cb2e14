"""What a server may send at most, and what is left of a request that is cancelled while it connects."""

from __future__ import annotations

import asyncio

import pytest

from autotuned.engines import http
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import ConnectionBroken, EventSplitter, Exchange, LineSplitter, fetch
from tests.engines.processes import descriptors, until
from tests.engines.scripted_server import HANG, HEAD, chunk, plain, scripted_server


@pytest.fixture
def path(paths):
    return paths.runtime / "server.sock"


@pytest.fixture
def small(monkeypatch):
    """Bounds that a test reaches soon."""
    monkeypatch.setattr(http, "MOST_HEAD_BYTES", 1000)
    monkeypatch.setattr(http, "MOST_KEPT_BYTES", 5000)
    monkeypatch.setattr(http, "MOST_EVENT_BYTES", 3000)


async def refused(path, script):
    async with scripted_server(path, script) as server:
        with pytest.raises(ConnectionBroken) as caught:
            await fetch(Endpoint.unix(path), "GET", "/", silence_seconds=10.0)
        await until(lambda: server.connections_count == 0, "the connection is closed")
    return str(caught.value)


@pytest.mark.usefixtures("small")
async def test_a_head_without_end_is_refused(path):
    lines = [b"HTTP/1.1 200 OK\r\n"] + [b"X-%d: %s\r\n" % (number, b"x" * 100) for number in range(20)]
    assert "head" in await refused(path, [*lines, HANG])
    assert "head" in await refused(path, [b"HTTP/1.1 200 OK\r\nX: ", b"x" * 2000, HANG])


@pytest.mark.usefixtures("small")
async def test_a_body_that_nobody_can_keep_is_refused(path):
    assert "body" in await refused(path, [HEAD, *[chunk(b"x" * 1000)] * 9, HANG])


@pytest.mark.usefixtures("small")
async def test_a_body_that_is_read_as_it_comes_may_be_long(path):
    async with scripted_server(path, [plain(200, b"x" * 40_000)]):
        exchange = Exchange(endpoint=Endpoint.unix(path), method="GET", target="/", silence_seconds=10.0)
        exchange_bytes = 0
        async with exchange:
            exchange._transport.max_size = 1000
            while data := await exchange.read():
                exchange_bytes += len(data)
    assert exchange_bytes == 40_000


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("splitter", [EventSplitter, LineSplitter])
@pytest.mark.parametrize("piece", [b"x" * 100, b"data: x\n"], ids=["one line", "many lines"])
def test_an_event_without_end_is_refused(splitter, piece):
    if splitter is LineSplitter and piece.endswith(b"\n"):
        pytest.skip("each of these lines ends")
    feeding = splitter()

    def feed_all():
        for _ in range(500):
            feeding.feed(piece)

    with pytest.raises(ConnectionBroken, match="without end"):
        feed_all()


@pytest.mark.parametrize("splitter", [EventSplitter, LineSplitter])
def test_what_comes_in_small_pieces_takes_time_by_its_length_alone(splitter):
    feeding, found = splitter(), []
    for _ in range(40_000):
        found += feeding.feed(b"data: " + b"x" * 100 if not found else b"")
    found += feeding.feed(b"\n\n")
    assert len(found[0]) > 4_000_000


class CutOff(Exchange):
    """One whose task is cancelled in the moment in which it is connected."""

    def connection_made(self, transport):
        super().connection_made(transport)
        task.cancel()


async def test_who_is_cancelled_while_it_connects_leaves_nothing(path):
    global task  # noqa: PLW0603 - the exchange has no way to its task
    before = descriptors()
    async with scripted_server(path, [HANG]) as server:
        exchange = CutOff(
            endpoint=Endpoint.unix(path), method="GET", target="/", body=b"", silence_seconds=600.0
        )
        task = asyncio.create_task(exchange.__aenter__())
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.connections_count == 0, "the connection is closed")
        assert exchange._watchdog is None
    await until(lambda: descriptors() == before, "no descriptor is left")
