"""A worker that speaks llama.cpp's HTTP and is never the limit: it streams as fast as a socket takes it.

    python -m tests.bench.fast_worker SOCKET TOKENS

Each token is an HTTP chunk of its own with the JSON that llama.cpp sends, as from a real worker.
"""

from __future__ import annotations

import socket
import sys
import threading

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
COMMON = '"created":1795469755,"id":"chatcmpl-1","model":"fast","system_fingerprint":"b0","object":"chat.completion.chunk"'


def chunk(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def answer(tokens: int) -> tuple[bytes, bytes, bytes]:
    start = chunk(
        '{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],'
        + COMMON
        + ',"prompt_progress":{"total":15,"cache":0,"processed":0,"time_ms":0}}'
    )
    token = chunk('{"choices":[{"finish_reason":null,"index":0,"delta":{"content":" word"}}],' + COMMON + "}")
    end = (
        chunk('{"choices":[{"finish_reason":"stop","index":0,"delta":{}}],' + COMMON + "}")
        + chunk(
            '{"choices":[],'
            + COMMON
            + f',"usage":{{"completion_tokens":{tokens},"prompt_tokens":15,"total_tokens":{tokens + 15},'
            + '"prompt_tokens_details":{"cached_tokens":0}},"timings":{"cache_n":0,"prompt_n":15,'
            + f'"prompt_ms":1.0,"predicted_n":{tokens},"predicted_ms":1.0}}}}'
        )
        + chunk("[DONE]")
        + b"0\r\n\r\n"
    )
    return start, token, end


def serve(connection: socket.socket, tokens: int) -> None:
    with connection:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(65536)
        start, token, end = answer(tokens)
        connection.sendall(HEAD + start)
        for _ in range(tokens):
            connection.sendall(token)
        connection.sendall(end)


def main(path: str, tokens: int) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, tokens), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
