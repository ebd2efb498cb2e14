"""A registry of one model that answers right, except where a test hands it other answers.

``script(part, *answers)``: the next requests whose path has ``part`` in it are answered with these bytes, one
each, after which the connection ends; ``HANG`` as the end of one keeps it open in silence. Everything that was
asked is in ``requests``.
"""

from __future__ import annotations

import hashlib
import json
import re
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.fakes.ollama.model_store import MODEL_MEDIA_TYPE

HANG = b"\0hang"
_LOOK_SECONDS = 0.05
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. Names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def reply(status: int, body: bytes = b"", **headers: object) -> bytes:
    """An answer; "_" in the names of headers stands for "-". Its length is told unless ``headers`` does."""
    named = {"Content_Length": len(body), "Connection": "close"} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode() + body


class ScriptedRegistry:
    """Serves a model with the content ``model`` under every name."""

    def __init__(self, model: bytes, manifest: Mapping[str, object] | None = None) -> None:
        config = json.dumps({"model_format": "gguf", "file_type": "Q8_0"}).encode()
        self.blobs = {digest_of(content): content for content in (config, model)}
        self.manifest = json.dumps(
            manifest
            or {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _layer(_CONFIG, config),
                "layers": [_layer(MODEL_MEDIA_TYPE, model)],
            }
        ).encode()
        self.model_digest = digest_of(model)
        self.requests: list[Asked] = []
        self.token = ""
        """What a request has to bring where it is not empty."""
        self.challenge = ""
        self._scripts: list[tuple[str, bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def script(self, part: str, *answers: bytes) -> None:
        """Answers the next requests for such paths with these."""
        self._scripts += [(part, answer) for answer in answers]

    def script_instead(self, part: str, *answers: bytes) -> None:
        """Answers with these in place of what was scripted for such paths."""
        self._scripts = [script for script in self._scripts if script[0] != part]
        self.script(part, *answers)

    def asked(self, part: str) -> list[Asked]:
        """The requests for such paths."""
        return [request for request in self.requests if part in request.path]

    def close(self) -> None:
        """Returns when no thread runs any more."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            if select.select([self._listener], [], [], _LOOK_SECONDS)[0]:
                thread = threading.Thread(target=self._serve, args=[self._listener.accept()[0]])
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            head = b""
            while b"\r\n\r\n" not in head:
                if self._ended.is_set():
                    return
                if select.select([connection], [], [], _LOOK_SECONDS)[0]:
                    data = connection.recv(65536)
                    if not data:
                        return
                    head += data
            answer = self._answer(_parsed(head))
            connection.sendall(answer.removesuffix(HANG))
            while answer.endswith(HANG) and not self._ended.is_set():
                if select.select([connection], [], [], _LOOK_SECONDS)[0] and not connection.recv(65536):
                    return

    def _answer(self, asked: Asked) -> bytes:
        self.requests.append(asked)
        for index, (part, answer) in enumerate(self._scripts):
            if part in asked.path:
                del self._scripts[index]
                return answer
        if self.token and asked.headers.get("authorization") != f"Bearer {self.token}":
            return reply(401, WWW_Authenticate=self.challenge)
        if "/manifests/" in asked.path:
            return reply(200, self.manifest, Content_Type=_MANIFEST)
        return self.blob_reply(asked)

    def blob_reply(self, asked: Asked) -> bytes:
        """A file, or the part of it that was asked for."""
        content = self.blobs.get(asked.path.rpartition("/")[2])
        if content is None:
            return reply(404)
        match = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
        if match is None:
            return reply(200, content, Content_Type="application/octet-stream")
        begin, size = int(match[1]), len(content)
        return reply(206, content[begin:], Content_Range=f"bytes {begin}-{size - 1}/{size}")


@contextmanager
def scripted_registry(
    model: bytes, manifest: Mapping[str, object] | None = None
) -> Iterator[ScriptedRegistry]:
    """A registry of this model, for the time of a test."""
    registry = ScriptedRegistry(model, manifest)
    try:
        yield registry
    finally:
        registry.close()


def _layer(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}


def _parsed(head: bytes) -> Asked:
    first, *lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Asked(path=first.split(" ")[1], headers={name.lower(): value.strip() for name, _, value in pairs})
