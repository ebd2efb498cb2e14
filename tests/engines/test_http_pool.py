"""Connections to servers with TLS are kept between requests, and given up when they are of no use."""

import asyncio
import shutil
import ssl
import subprocess

import pytest

from autotuned.engines import http, http_pool
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import ConnectionBroken, Exchange
from autotuned.engines.http_pool import ConnectionPool
from tests.engines.openai_case import engine_of
from tests.engines.processes import descriptors, until
from tests.engines.scripted_server import HANG, HEAD, LAST_CHUNK
from tests.engines.scripted_upstream import ANSWER, chunk_of, scripted_upstream
from tests.engines.shapes import SHAPE
from tests.suites.engine_case import answer, ask, text_of

OPEN_HEAD = HEAD.replace(b"Connection: close\r\n", b"")
OPEN_ANSWER = (OPEN_HEAD, *ANSWER[1:])
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for the loopback interface, and its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, file = folder / "key.pem", folder / "certificate.pem"
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(
        [*command, *names, "-days", "2", "-keyout", key, "-out", file], check=True, capture_output=True
    )
    return file, key


@pytest.fixture
def tls(certificate, monkeypatch):
    file, key = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return context


@pytest.fixture
async def server(tls):
    async with scripted_upstream(tls=tls, keeps_open=True, script=[WHOLE]) as server:
        yield server


@pytest.fixture
def pool():
    pool = ConnectionPool()
    yield pool
    pool.close()


@pytest.fixture
def endpoint(server):
    return Endpoint.of_url(server.url)


async def ask_for(endpoint, pool):
    async with Exchange(
        endpoint=endpoint, method="POST", target="/x", body=b"{}", silence_seconds=5.0, pool=pool
    ) as exchange:
        return await exchange.read_all()


async def test_a_connection_serves_many_requests(endpoint, pool, server):
    for _ in range(3):
        assert await ask_for(endpoint, pool) == b"ok"
        assert pool.idle_count == 1
    assert (server.accepted_count, len(server.bodies)) == (1, 3)
    assert b"Connection: close" not in server.heads[0]


async def test_two_at_a_time_take_two(endpoint, pool, server):
    await asyncio.gather(ask_for(endpoint, pool), ask_for(endpoint, pool))
    assert (server.accepted_count, pool.idle_count) == (2, 2)
    await asyncio.gather(ask_for(endpoint, pool), ask_for(endpoint, pool))
    assert server.accepted_count == 2


async def test_a_kept_connection_that_breaks_is_replaced_once(endpoint, pool, server):
    server.breaks_kept = True
    assert await ask_for(endpoint, pool) == b"ok"
    assert pool.idle_count == 1
    assert await ask_for(endpoint, pool) == b"ok"
    assert (server.accepted_count, len(server.bodies)) == (2, 2)


async def test_a_new_connection_that_breaks_is_an_error(endpoint, pool, server):
    server.script = []
    server.keeps_open = False
    with pytest.raises(ConnectionBroken):
        await ask_for(endpoint, pool)
    assert len(server.bodies) == 1


async def test_an_answer_that_breaks_is_not_asked_for_again(endpoint, pool, server):
    await ask_for(endpoint, pool)
    server.script = [WHOLE[:30]]
    server.keeps_open = False
    with pytest.raises(ConnectionBroken):
        await ask_for(endpoint, pool)
    assert (len(server.bodies), pool.idle_count) == (2, 0)


async def test_what_the_server_closes_is_not_kept(endpoint, pool, server):
    server.script = [WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")]
    await ask_for(endpoint, pool)
    assert pool.idle_count == 0
    server.script = [WHOLE]
    await ask_for(endpoint, pool)
    assert pool.idle_count == 1


async def test_a_connection_that_closes_while_it_is_idle_is_dropped(endpoint, pool, server):
    server.keeps_open = False
    await ask_for(endpoint, pool)
    await until(lambda: pool.idle_count == 0, "its end was noticed")


async def test_an_idle_connection_is_closed_after_a_while(endpoint, pool, server, monkeypatch):
    monkeypatch.setattr(http_pool, "IDLE_SECONDS", 0.05)
    await ask_for(endpoint, pool)
    assert pool.idle_count == 1
    await until(lambda: pool.idle_count == 0, "it was closed")
    await until(lambda: server.connections_count == 0, "the server saw it")


async def test_a_request_that_is_given_up_closes_its_connection(endpoint, pool, server):
    server.script = [OPEN_HEAD, chunk_of(content="Hel"), HANG]
    async with Exchange(
        endpoint=endpoint, method="POST", target="/x", body=b"{}", silence_seconds=5.0, pool=pool
    ) as exchange:
        await exchange.read()
    await until(lambda: server.connections_count == 0, "the server saw it")
    assert pool.idle_count == 0


async def test_a_released_answer_that_does_not_end_closes(endpoint, pool, server, monkeypatch):
    monkeypatch.setattr(http, "LINGER_SECONDS", 0.05)
    server.script = [OPEN_HEAD, chunk_of(content="Hel"), HANG]
    async with Exchange(
        endpoint=endpoint, method="POST", target="/x", body=b"{}", silence_seconds=5.0, pool=pool
    ) as exchange:
        await exchange.read()
        exchange.release()
    await until(lambda: server.connections_count == 0, "the server saw it")
    assert pool.idle_count == 0


async def test_a_closed_pool_keeps_nothing(endpoint, server):
    before = descriptors()
    pool = ConnectionPool()
    await ask_for(endpoint, pool)
    pool.close()
    await ask_for(endpoint, pool)
    assert pool.idle_count == 0
    await until(lambda: server.connections_count == 0, "the server saw it")
    await until(lambda: descriptors() == before, "no descriptor is left")


async def test_an_engine_asks_a_far_server_on_one_connection(server):
    server.script = OPEN_ANSWER
    engine = engine_of(server.url)
    (entry,) = await engine.models()
    model = await engine.load(entry, SHAPE, lambda _: None)
    idle = engine._servers[0]._pool
    for _ in range(3):
        assert text_of(await answer(model, ask("Hello!"))) == "Hello!"
        await until(lambda: idle.idle_count == 1, "the end of the answer came")
    assert len(server.bodies) == 3
    # The look for what it is gets an answer that closes.
    assert server.accepted_count <= 2
    await engine.close()
    await until(lambda: server.connections_count == 0, "the server saw it")


async def test_a_stranger_with_a_certificate_of_its_own_is_not_asked(endpoint, pool, server, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ConnectionBroken, match=r"(?i)certificate"):
        await ask_for(endpoint, pool)
    assert server.bodies == []


async def test_plain_http_takes_a_connection_for_each_request():
    async with scripted_upstream(keeps_open=True, script=[HEAD, *ANSWER[1:-1], LAST_CHUNK]) as server:
        engine = engine_of(server.url)
        (entry,) = await engine.models()
        model = await engine.load(entry, SHAPE, lambda _: None)
        before = server.accepted_count
        for _ in range(2):
            await answer(model, ask("Hello!"))
        assert server.accepted_count == before + 2
        await engine.close()
