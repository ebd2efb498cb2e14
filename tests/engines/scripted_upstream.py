"""A server of OpenAI's dialect on TCP that lists what it was told and answers with the bytes it was given."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.engines.scripted_server import HANG, HEAD, LAST_CHUNK, event, plain

DONE = event(b"[DONE]")


def chunk_of(*, finish_reason: str | None = None, **delta: Any) -> bytes:
    """The event of one delta."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return event(json.dumps({"choices": choices}).encode())


USAGE = event(b'{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}')
ANSWER = (HEAD, chunk_of(content="Hello!"), chunk_of(finish_reason="stop"), USAGE, DONE, LAST_CHUNK)


def error(status: int, body: Any, *headers: str) -> bytes:
    """A whole answer that is an error, with headers of its own."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "".join(f"{header}\r\n" for header in headers).encode()
    return plain(status, text).replace(b"Connection: close\r\n", b"Connection: close\r\n" + head)


class ScriptedUpstream:
    """What it says, and what it was asked; ``script`` is for requests that are not for its models."""

    def __init__(self) -> None:
        self.port = 0
        self.scheme = "http"
        self.models: list[dict[str, Any]] = [{"id": "m", "object": "model", "owned_by": "vllm"}]
        self.list_answer: Sequence[bytes] | None = None
        self.server_header = "uvicorn"
        self.script: Sequence[bytes] = ANSWER
        self.heads: list[bytes] = []
        self.bodies: list[dict[str, Any]] = []
        self.looks_count = 0
        self.connections_count = 0
        self.accepted_count = 0
        self.keeps_open = False
        # Whether a connection that was kept is closed when the next request comes on it.
        self.breaks_kept = False

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def answer_to(self, target: str) -> Sequence[bytes]:
        """The pieces of an answer."""
        if target.endswith("/models"):
            self.looks_count += 1
            if self.list_answer is not None:
                return self.list_answer
            body = json.dumps({"object": "list", "data": self.models}).encode()
            return [
                b"HTTP/1.1 200 OK\r\nServer: %s\r\nContent-Length: %d\r\n\r\n%s"
                % (self.server_header.encode(), len(body), body)
            ]
        if target.endswith(("/props", "/version")):
            return [plain(404, b"Not Found")]
        return self.script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, with as many requests as ``keeps_open`` allows."""
        self.connections_count += 1
        self.accepted_count += 1
        try:
            await self._serve_one(reader, writer)
            while self.keeps_open:
                if self.breaks_kept:
                    await reader.readuntil(b"\r\n\r\n")
                    return
                await self._serve_one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections_count -= 1
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        self.heads.append(head)
        target = head.split()[1].decode()
        if body:
            self.bodies.append(json.loads(body))
        for piece in self.answer_to(target):
            if piece == HANG:
                await reader.read()
                return
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def scripted_upstream(
    *, port: int = 0, tls: ssl.SSLContext | None = None, **changes: Any
) -> AsyncIterator[ScriptedUpstream]:
    """A server that listens for as long as this lasts."""
    upstream = ScriptedUpstream()
    for name, value in changes.items():
        setattr(upstream, name, value)
    listener = await asyncio.start_server(upstream.serve, "127.0.0.1", port, ssl=tls)
    upstream.port = listener.sockets[0].getsockname()[1]
    upstream.scheme = "https" if tls else "http"
    try:
        yield upstream
    finally:
        listener.close()
        await listener.wait_closed()
