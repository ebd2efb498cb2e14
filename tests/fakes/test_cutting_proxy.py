"""The proxy cuts where it is told to, counts what it sends, holds, and is gone afterwards."""

import threading

import httpx
import pytest

from tests.engines.downloading import content
from tests.fakes.cutting_proxy import THREAD_NAME, cutting_proxy, random_cuts
from tests.fakes.scripted_registry import digest_of, scripted_registry

CONTENT = content(100_000)
PATH = f"/v2/library/some/blobs/{digest_of(CONTENT)}"


@pytest.fixture
def port():
    with scripted_registry(CONTENT) as running:
        yield int(running.url.rpartition(":")[2])


def received(url):
    """What came before the connection ended, and how it ended."""
    data = b""
    with httpx.Client(trust_env=False, timeout=5.0) as client, client.stream("GET", url + PATH) as answer:
        try:
            for piece in answer.iter_raw():
                data += piece
        except httpx.TransportError as error:
            return data, type(error)
    return data, None


def test_without_cuts_all_comes_through_and_is_counted(port):
    with cutting_proxy(port) as proxy:
        assert received(proxy.url) == (CONTENT, None)
        assert len(CONTENT) < proxy.sent_bytes < len(CONTENT) + 1000
        assert proxy.connections_count == 1


def test_connections_end_at_their_bytes_in_turn_reset_and_closed(port):
    with cutting_proxy(port, cuts=(20_000, 50_000)) as proxy:
        first, first_end = received(proxy.url)
        assert proxy.sent_bytes == 20_000
        second, second_end = received(proxy.url)
        assert proxy.sent_bytes == 50_000
        assert received(proxy.url) == (CONTENT, None)
        assert proxy.cuts_count == 2
    assert CONTENT.startswith(first)
    assert len(first) < 20_000
    assert CONTENT.startswith(second)
    assert 29_000 < len(second) < 30_000
    assert (first_end, second_end) == (httpx.ReadError, httpx.RemoteProtocolError)


def test_from_a_byte_on_it_holds(port):
    with cutting_proxy(port) as proxy:
        proxy.hold_at = 30_000
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(proxy.url + PATH, timeout=0.2, trust_env=False)
        assert proxy.sent_bytes == 30_000


def test_cuts_are_the_same_for_a_seed_and_within_the_file():
    assert random_cuts(20, 1000, 1) == random_cuts(20, 1000, 1) != random_cuts(20, 1000, 2)
    assert len(set(random_cuts(20, 1000, 1))) == 20
    assert all(0 < cut < 1000 for cut in random_cuts(20, 1000, 1))


def test_no_thread_is_left(port):
    with cutting_proxy(port) as proxy:
        received(proxy.url)
        assert THREAD_NAME in {thread.name for thread in threading.enumerate()}
    assert THREAD_NAME not in {thread.name for thread in threading.enumerate()}
