"""A proxy in front of a server that cuts connections at chosen bytes, falls silent, or slows down.

It counts every byte that it hands to the client, heads of answers included. ``cuts`` are positions in that
count: at each of them the connection under way ends, in turn with a clean end and a reset.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

PIECE_BYTES = 256 << 10
# What is on its way when a connection is reset is lost, as on a real line: that is kept small.
SEND_BUFFER_BYTES = 64 << 10
THREAD_NAME = "cutting proxy"
_LOOK_SECONDS = 0.05
_STUCK_SECONDS = 60.0


def random_cuts(count: int, size_bytes: int, seed: int) -> tuple[int, ...]:
    """Positions of cuts at random bytes of a transfer of this size."""
    return tuple(sorted(random.Random(seed).sample(range(1, size_bytes), count)))  # noqa: S311 - a test's chance


class CuttingProxy:
    """``port`` is where it listens; ``sent_bytes`` went to clients, over ``connections_count`` connections; ``cuts_count`` were cut.

    ``hold_at``: from this byte of the count on nothing is sent any more, and no connection ends.
    """

    def __init__(self, target_port: int, cuts: Sequence[int], bytes_per_second: float) -> None:
        self.sent_bytes = 0
        self.connections_count = 0
        self.cuts_count = 0
        self.hold_at: int | None = None
        self._target_port = target_port
        self._cuts = list(cuts)
        self._bytes_per_second = bytes_per_second
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name=THREAD_NAME)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Ends all connections; returns when no thread runs any more."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._listener], [], [], _LOOK_SECONDS)[0]:
                continue
            client, _ = self._listener.accept()
            self.connections_count += 1
            thread = threading.Thread(target=self._serve, args=[client], name=THREAD_NAME)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        client.settimeout(_STUCK_SECONDS)
        with (
            client,
            socket.create_connection(("127.0.0.1", self._target_port)) as server,
            suppress(ConnectionError),
        ):
            self._relay(client, server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        while not self._ended.is_set():
            is_held = self.hold_at is not None and self.sent_bytes >= self.hold_at
            sources = [client] if is_held else [client, server]
            for source in select.select(sources, [], [], _LOOK_SECONDS)[0]:
                data = source.recv(PIECE_BYTES)
                if not data:
                    return
                if source is client:
                    server.sendall(data)
                elif self._send(client, data):
                    return

    def _send(self, client: socket.socket, data: bytes) -> bool:
        """Hands bytes to the client, up to the next cut; returns whether that came."""
        with self._lock:
            if self.hold_at is not None:
                data = data[: max(0, self.hold_at - self.sent_bytes)]
            cut = bool(self._cuts) and self.sent_bytes + len(data) >= self._cuts[0]
            if cut:
                data = data[: max(0, self._cuts.pop(0) - self.sent_bytes)]
                self.cuts_count += 1
            self.sent_bytes += len(data)
        if self._bytes_per_second:
            self._ended.wait(len(data) / self._bytes_per_second)
        client.sendall(data)
        if cut and self.cuts_count % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return cut


@contextmanager
def cutting_proxy(
    target_port: int, *, cuts: Sequence[int] = (), bytes_per_second: float = 0.0
) -> Iterator[CuttingProxy]:
    """A proxy in front of a port of the loopback interface."""
    proxy = CuttingProxy(target_port, cuts, bytes_per_second)
    try:
        yield proxy
    finally:
        proxy.close()
