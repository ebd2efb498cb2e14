"""Addresses of servers: what is understood, what is refused, and what is never shown."""

import asyncio
import errno
import os
import socket
import ssl

import pytest

from autotuned.core.upstream import parse_upstream
from autotuned.engines.endpoint import Endpoint, EndpointInvalid, connection_problem
from autotuned.engines.http import ConnectionBroken, Exchange
from autotuned.engines.ollama.address import endpoint_of

SECRET = "sesame"  # noqa: S105 - not one


@pytest.mark.parametrize(
    ("url", "shown", "host"),
    [
        ("localhost:1234", "http://localhost:1234", "localhost:1234"),
        ("HTTP://LocalHost:1234/", "http://localhost:1234", "localhost:1234"),
        ("http://[::1]:1234/v1/", "http://[::1]:1234/v1", "[::1]:1234"),
        ("https://a.example", "https://a.example", "a.example"),
        ("https://a.example:80/b//", "https://a.example:80/b", "a.example:80"),
    ],
)
def test_an_address(url, shown, host):
    endpoint = Endpoint.of_url(url)
    assert endpoint.url == shown
    assert endpoint.head == f"Host: {host}\r\n"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http://:8080",
        "http://a:0",
        "http://a:70000",
        "ftp://a",
        "http://[a",
        "http://a b",
        "http://a/\r\nX: y",
        "http://ä",
        "http://a/?key=b",
        "http://a/#b",
    ],
)
def test_what_is_no_address(url):
    with pytest.raises(EndpointInvalid):
        Endpoint.of_url(url)


@pytest.mark.parametrize("token", ["a b", "a\r\nX: y", "ä", "a\0"])
def test_a_token_that_would_break_a_header_is_refused_and_not_shown(token):
    with pytest.raises(EndpointInvalid) as caught:
        Endpoint.of_url("http://a", f"{SECRET}{token}")
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(Endpoint.of_url("http://a", SECRET))


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@a",
        f"http://user:{SECRET}@a:70000",
        f"http://user:{SECRET}@[a",
        f"ftp://user:{SECRET}@a",
        f"user:{SECRET}@a:1234",
        f"http://{SECRET}@a/v1",
    ],
)
def test_a_password_in_a_url_is_never_shown(url):
    for use in (
        Endpoint.of_url,
        lambda text: endpoint_of(text, {}),
        lambda text: parse_upstream(f"lab={text}"),
        parse_upstream,
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            use(url)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 11434)"), "connection refused"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] Connect"),
            os.strerror(111).lower(),
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "no such file or directory"),
        (socket.gaierror(-2, "Name or service not known"), "its host is not known"),
        (OSError("something"), "something"),
    ],
)
def test_why_there_is_no_connection(error, words):
    assert connection_problem(error) == words


async def test_a_certificate_and_a_server_without_tls_are_told_apart():
    untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
    untrusted.verify_message = "self-signed certificate"
    assert connection_problem(untrusted) == "its certificate is not trusted: self-signed certificate"

    async def greet(reader, writer):
        writer.write(b"220 hello\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionBroken, match="it does not speak TLS there"):
            async with Exchange(
                endpoint=Endpoint.of_url(f"https://127.0.0.1:{port}"),
                method="GET",
                target="/",
                silence_seconds=5,
            ):
                pass
