"""A server that answers with the bytes it was given, however wrong they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"
# In a script: wait until the client is gone.
HANG = b""


def chunk(data: bytes) -> bytes:
    """One chunk of a body in chunks."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(data: bytes) -> bytes:
    """One server-sent event in a chunk of its own."""
    return chunk(b"data: " + data + b"\n\n")


def plain(status: int, body: bytes) -> bytes:
    """A whole answer that is not streamed."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


class ScriptedServer:
    """What was asked, and how many clients are there now."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections_count = 0


@asynccontextmanager
async def scripted_server(path: Path, script: Sequence[bytes]) -> AsyncIterator[ScriptedServer]:
    """Serves the script to every client: reads the request, writes each piece, closes."""
    server = ScriptedServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections_count += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            server.requests.append(head + await reader.readexactly(length))
            for piece in script:
                if piece == HANG:
                    await reader.read()
                    return
                writer.write(piece)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            server.connections_count -= 1
            writer.close()

    listener = await asyncio.start_unix_server(serve, path)
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
