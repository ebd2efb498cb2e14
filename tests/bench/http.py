"""The leanest HTTP client there is: bytes on a socket, so that what is measured is the server."""

from __future__ import annotations

import json
import socket
import time


def body(max_tokens: int, **extra: object) -> bytes:
    """The request that every path gets: the same question, greedy, streamed."""
    return json.dumps(
        {
            "model": "pocket",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "stream": True,
            "temperature": 0,
            "max_tokens": max_tokens,
            **extra,
        }
    ).encode()


def post(connection: socket.socket, content: bytes, *, close: bool) -> None:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n{'Connection: close' if close else ''}"
    ).rstrip("\r\n")
    connection.sendall(head.encode() + b"\r\n\r\n" + content)


def first_content_seconds(connection: socket.socket, content: bytes, *, close: bool) -> float:
    """Seconds from sending to the first piece of text; reads the answer to its end."""
    started = time.perf_counter()
    post(connection, content, close=close)
    received = b""
    first = 0.0
    while b"data: [DONE]" not in received:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError(received.decode(errors="replace"))
        received += data
        if not first and b'"content":"' in received.replace(b'"content":""', b""):
            first = time.perf_counter() - started
    while not received.endswith(b"0\r\n\r\n"):
        received += connection.recv(65536)
    return first
