"""A registry that Ollama pulls from, on a loopback port; its models lie in a folder in Ollama's layout.

    with Registry(folder) as registry:
        add_model(registry.models, "lab/pocket")
        ...  # pull f"{registry.host}/lab/pocket"

Like the original it sends files from another host, to which it redirects: Ollama takes them from nowhere else.
Tests say what goes wrong, and read what was sent.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from tests.fakes.ollama.model_store import blob_path, manifests_folder

SEND_BYTES = 16 << 10
_MANIFEST = re.compile(r"/v2/([^/]+)/([^/]+)/manifests/([^/]+)")
_BLOB = re.compile(r"/v2/[^/]+/[^/]+/blobs/(sha256:[0-9a-f]{64})")
_FILE = re.compile(r"/files/(sha256:[0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(slots=True)
class Refusal:
    """An answer in the place of the right one: to ``where``, "manifests", "blobs" or the GETs of "files"."""

    where: str
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Registry:
    """Serves from ``with`` to its end.

    ``cuts``: after how many bytes a file breaks off, one for each answer, then they come whole.
    ``hold_after``: after how many bytes of a file nothing more comes until ``release``.
    ``wrong``: files whose first byte is another one. ``sent_bytes``: of files.
    """

    def __init__(self, folder: Path) -> None:
        self.models = folder
        self.refusals: list[Refusal] = []
        self.cuts: list[int] = []
        self.hold_after: int | None = None
        self.wrong: set[str] = set()
        self.sent_bytes = 0
        self.requests: list[tuple[str, str]] = []
        self._released = threading.Event()
        self._held = threading.Event()
        registry = self

        class Handler(_Handler):
            """One connection."""

            owner = registry

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A held answer ends with ``release``, so the end may wait for all.
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def host(self) -> str:
        """As names have it."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def files_url(self) -> str:
        """Where the files are."""
        return f"http://localhost:{self._server.server_port}/files"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def release(self) -> None:
        """Lets what is held go on, and holds nothing any more."""
        self.hold_after = None
        self._released.set()

    def is_holding(self) -> bool:
        """Whether an answer has stopped at ``hold_after``."""
        return self._held.is_set()

    def wait_released(self) -> None:
        """For who sends a file: waits until the test lets go."""
        self._held.set()
        self._released.wait()

    def refusal(self, where: str) -> Refusal | None:
        """What is answered there instead, if anything is."""
        return next((each for each in self.refusals if each.where == where), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A client may keep its connection for a next request that never comes.
    timeout = 1.0
    owner: Registry

    def handle(self) -> None:
        """Clients may leave at any time."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base
        return

    def _serve(self) -> None:
        self.owner.requests.append((self.command, self.path))
        if self.path == "/token":
            self._answer(200, b'{"token":"of a stranger"}')
        elif found := _MANIFEST.fullmatch(self.path):
            self._manifest(*found.groups())
        elif found := _BLOB.fullmatch(self.path):
            self._redirect(found[1])
        elif found := _FILE.fullmatch(self.path):
            self._file(found[1])
        else:
            self._answer(404, b"404 page not found")

    def _manifest(self, namespace: str, model: str, tag: str) -> None:
        if refusal := self.owner.refusal("manifests"):
            self._answer(refusal.status, refusal.body, refusal.headers)
            return
        found = list(manifests_folder(self.owner.models).glob(f"*/{namespace}/{model}/{tag}"))
        if not found:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            return
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        self._answer(200, found[0].read_bytes(), {"Content-Type": kind})

    def _redirect(self, digest: str) -> None:
        if refusal := self.owner.refusal("blobs"):
            self._answer(refusal.status, refusal.body, refusal.headers)
        elif not blob_path(self.owner.models, digest).exists():
            self._answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        else:
            self._answer(307, b"", {"Location": f"{self.owner.files_url}/{digest}"})

    def _file(self, digest: str) -> None:
        refusal = self.owner.refusal("files") if self.command == "GET" else None
        if refusal or not self.headers["Host"].startswith("localhost:"):
            refusal = refusal or Refusal("files", 403)
            self._answer(refusal.status, refusal.body, refusal.headers)
            return
        content = blob_path(self.owner.models, digest).read_bytes()
        if digest in self.owner.wrong:
            content = bytes([content[0] ^ 1]) + content[1:]
        first, last = 0, len(content) - 1
        if asked := _RANGE.fullmatch(self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2]), last)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if self.command != "HEAD":
            self._send(content[first : last + 1])

    def _send(self, content: bytes) -> None:
        end = self.owner.cuts.pop(0) if self.owner.cuts else len(content)
        held_at, sent = self.owner.hold_after, 0
        try:
            while sent < min(end, len(content)):
                if held_at is not None and sent >= held_at:
                    self.owner.wait_released()
                    held_at = None
                most = min(end, len(content)) if held_at is None else min(end, held_at)
                piece = content[sent : min(sent + SEND_BYTES, most)]
                self.wfile.write(piece)
                sent += len(piece)
                self.owner.sent_bytes += len(piece)
        except ConnectionError:
            pass  # the client has left
        if sent < len(content):
            self.close_connection = True

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
