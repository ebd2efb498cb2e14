"""One request to a server without the daemon: bytes on a socket, so that what is measured is the server.

The leanest client that is fair: a new connection for each request, as the adapters have it. ``ask``
blocks and belongs in a thread.
"""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

SILENCE_SECONDS = 60.0
FIRST_TEXT = re.compile(rb'"content": ?"[^"]')
"""The first piece of an answer, as Ollama's lines and OpenAI's chunks have it."""
LAST_CHUNK = b"\r\n0\r\n\r\n"

Address = Path | tuple[str, int]


class RequestFailed(Exception):
    """The server did not answer, or with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A server, and one request to it."""

    address: Address
    target: str
    body: bytes

    def ask(self) -> float:
        """Seconds to the first piece of text; reads the answer to its end. Raises ``RequestFailed``."""
        started = time.perf_counter()
        received, first = b"", 0.0
        with _connected(self.address) as connection:
            connection.sendall(self._request())
            while not received.endswith(LAST_CHUNK) and (data := connection.recv(65536)):
                received += data
                if not first and FIRST_TEXT.search(received):
                    first = time.perf_counter() - started
        if not first:
            raise RequestFailed(received.decode(errors="replace")[:2000])
        return first

    def _request(self) -> bytes:
        return (
            f"POST {self.target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        ).encode() + self.body


def address_of(url: str) -> Address:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 80)


def _connected(address: Address) -> socket.socket:
    if isinstance(address, Path):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(SILENCE_SECONDS)
        connection.connect(str(address))
        return connection
    connection = socket.create_connection(address, timeout=SILENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
