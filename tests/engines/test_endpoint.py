"""Addresses of servers: what is understood, what is refused, and what is never shown."""

import pytest

from autotuned.core.upstream import parse_upstream
from autotuned.engines.endpoint import Endpoint, EndpointInvalid
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
