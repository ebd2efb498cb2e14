"""A hub in Hugging Face's shape on a loopback port: repositories, tokens, terms, and a CDN behind it.

It refuses what the original refuses: a CDN address without its signature or with a token, a token that nobody
was given, a repository whose terms were not accepted. A test sets what goes wrong, and reads what was sent.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

# Names that a repository has in LFS, whatever their size.
LFS_ENDINGS = (".gguf", ".safetensors", ".bin", "tokenizer.json")
SEND_BYTES = 16 << 10
SIGNATURE = "signed"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_CACHED = re.compile(r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)")
_BLOB = re.compile(r"/xet/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An answer in the place of a right one. ``where``: "api", "resolve" or "cdn"."""

    where: str
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked of the hub or of its CDN."""

    where: str
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class Repository:
    """One of them, at its newest commit."""

    name: str
    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file."""

    def __post_init__(self) -> None:
        self.digests = {path: hashlib.sha256(data).hexdigest() for path, data in self.files.items()}

    @property
    def commit(self) -> str:
        return git_name(repr(sorted(self.digests.items())).encode())


def is_lfs(path: str) -> bool:
    """Whether the content of a file is not in Git itself."""
    return path.endswith(LFS_ENDINGS)


def git_name(data: bytes) -> str:
    """What Git calls a content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class FakeHub:
    """Serves from ``with`` to its end. Faults are used up one by one, each by the next request of its place."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.moved: dict[str, str] = {}
        self.tokens: dict[str, set[str]] = {}
        """Those that were given out, and the names of the repositories whose terms their owners accepted."""
        self.faults: list[Fault] = []
        self.wrong: dict[str, int] = {}
        """How often a file comes with a wrong byte, by its path."""
        self.ignores_ranges = False
        self.requests: list[Request] = []
        self.sent_bytes = 0
        self._lock = threading.Lock()
        self._servers = [_Server(self._answer_hub), _Server(self._answer_cdn)]
        self.cdn_url = self._servers[1].url
        """Where the hub sends whoever asks for a large file."""

    @property
    def url(self) -> str:
        """Where the hub answers."""
        return self._servers[0].url

    @property
    def cdn_port(self) -> int:
        """Where the CDN listens."""
        return self._servers[1].port

    def __enter__(self) -> Self:
        for server in self._servers:
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.stop()

    def add(self, name: str, files: Mapping[str, bytes], *, gated: bool = False) -> Repository:
        """A repository; another one of this name becomes an older commit."""
        self.repositories[name] = Repository(name, dict(files), gated=gated)
        return self.repositories[name]

    def asked(self, where: str) -> list[Request]:
        """The requests of one place."""
        return [request for request in self.requests if request.where == where]

    def _fault(self, where: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.where == where:
                    self.faults.remove(fault)
                    return fault
        return None

    def _note(self, where: str, request: _Handler) -> Fault | None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(where, request.command, request.path, headers))
        return self._fault(where)

    def _answer_hub(self, request: _Handler) -> None:
        path = unquote(urlsplit(request.path).path)
        api, file, cached = _API.fullmatch(path), _FILE.fullmatch(path), _CACHED.fullmatch(path)
        if fault := self._note("resolve" if file or cached else "api", request):
            request.reply(fault.status, fault.body, fault.headers)
            return
        match = api or file or cached
        if match is None:
            request.refuse(404, "", "Sorry, we can't find the page you are looking for.")
            return
        name = match[1]
        if name in self.moved:
            location = request.path.replace(quote(name, safe="/"), self.moved[name], 1)
            request.reply(307, b"", {"Location": location})
            return
        repository = self.repositories.get(name)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            request.refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and not token):
            if token:
                request.refuse(404, "RepoNotFound", "Repository not found")
            else:
                request.refuse(401, "", "Invalid username or password.")
        elif api:
            self._answer_api(request, repository, api[2] or "", api[3] or "main")
        elif repository.gated and name not in self.tokens.get(token, ()):
            request.refuse(
                403 if token else 401,
                "GatedRepo",
                f"Access to model {name} is restricted and you are not in the authorized list.",
            )
        else:
            self._answer_file(request, repository, match[2], match[3], is_cached=bool(cached))

    def _answer_api(self, request: _Handler, repository: Repository, kind: str, revision: str) -> None:
        if revision not in {"main", repository.commit}:
            request.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        has_sizes = "blobs" in parse_qs(urlsplit(request.path).query)
        answer: object
        if kind == "tree":
            answer = [_tree_entry(path, data) for path, data in sorted(repository.files.items())]
        else:
            answer = {
                "_id": "621ffdc036468d709f174338",
                "id": repository.name,
                "modelId": repository.name,
                "author": repository.name.partition("/")[0],
                "sha": repository.commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [
                    _sibling(path, data) if has_sizes else {"rfilename": path}
                    for path, data in sorted(repository.files.items())
                ],
            }
        request.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json; charset=utf-8"})

    def _answer_file(
        self, request: _Handler, repository: Repository, revision: str, path: str, *, is_cached: bool
    ) -> None:
        if revision not in {"main", repository.commit}:
            request.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        data = repository.files.get(path)
        if data is None:
            request.refuse(404, "EntryNotFound", "Entry not found")
            return
        head = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if is_cached:
            request.send_file(self._content(path, data), {**head, "ETag": f'"{git_name(data)}"'}, gzips=True)
        elif is_lfs(path):
            digest = repository.digests[path]
            head |= {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{digest}"'}
            address = f"{self.cdn_url}/xet/{digest}?X-Amz-Signature={SIGNATURE}"
            request.reply(302, b"Found. Redirecting", {**head, "Location": address})
        else:
            address = f"/api/resolve-cache/models/{repository.name}/{repository.commit}/{quote(path)}"
            head |= {"X-Linked-Size": str(len(data)), "ETag": f'"{git_name(data)}"'}
            request.reply(307, b"", {**head, "Location": address})

    def _answer_cdn(self, request: _Handler) -> None:
        if fault := self._note("cdn", request):
            request.reply(fault.status, fault.body, fault.headers)
            return
        parts = urlsplit(request.path)
        match = _BLOB.fullmatch(parts.path)
        if request.headers.get("Authorization"):
            request.reply(400, b"<Error><Code>InvalidArgument</Code></Error>")
        elif parse_qs(parts.query).get("X-Amz-Signature") != [SIGNATURE] or match is None:
            request.reply(403, b"<Error><Code>AccessDenied</Code></Error>")
        else:
            self._send_blob(request, match[1])

    def _send_blob(self, request: _Handler, digest: str) -> None:
        for repository in self.repositories.values():
            for path, data in repository.files.items():
                if repository.digests[path] == digest:
                    head = {"ETag": f'"{digest}"'}
                    request.send_file(
                        self._content(path, data), head, self.sent, ranges=not self.ignores_ranges
                    )
                    return
        request.reply(403, b"<Error><Code>AccessDenied</Code></Error>")

    def _content(self, path: str, data: bytes) -> bytes:
        if self.wrong.get(path, 0) <= 0:
            return data
        self.wrong[path] -= 1
        return data[:-1] + bytes([data[-1] ^ 1])

    def sent(self, count: int) -> None:
        """Counts."""
        with self._lock:
            self.sent_bytes += count


class _Server:
    """One port."""

    def __init__(self, answer: Callable[[_Handler], None]) -> None:
        handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One connection; each answer ends it, so that a cut is one."""

    answer: Callable[[_Handler], None]

    def do_GET(self) -> None:
        type(self).answer(self)

    do_HEAD = do_GET  # noqa: N815 - the name that the library calls

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A whole answer."""
        self._head(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        """As the hub says no."""
        headers = {"Content-Type": "application/json", "X-Error-Message": message}
        if code:
            headers["X-Error-Code"] = code
        self.reply(status, json.dumps({"error": message}).encode(), headers)

    def send_file(
        self,
        data: bytes,
        headers: Mapping[str, str],
        sent: Callable[[int], None] | None = None,
        *,
        gzips: bool = False,
        ranges: bool = True,
    ) -> None:
        """A file, or the part of it that was asked for."""
        wanted = _RANGE.fullmatch(self.headers.get("Range", "")) if ranges else None
        status, part, head = 200, memoryview(data), dict(headers)
        if wanted:
            begin, end = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
            if begin > end:
                self.reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            status, part = 206, part[begin : end + 1]
            head["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
        elif gzips and "gzip" in self.headers.get("Accept-Encoding", ""):
            part, head["Content-Encoding"] = memoryview(gzip.compress(data)), "gzip"
        self._head(status, {"Content-Length": str(len(part)), "Content-Type": "binary/octet-stream", **head})
        if self.command == "HEAD":
            return
        try:
            for begin in range(0, len(part), SEND_BYTES):
                piece = part[begin : begin + SEND_BYTES]
                self.wfile.write(piece)
                if sent is not None:
                    sent(len(piece))
        except OSError:
            pass  # whoever asked is gone
        self.close_connection = True

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _tree_entry(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "oid": git_name(data), "size": len(data), "path": path}
    if is_lfs(path):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


def _sibling(path: str, data: bytes) -> dict[str, object]:
    sibling: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": git_name(data)}
    if is_lfs(path):
        digest = hashlib.sha256(data).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
        sibling["blobId"] = git_name(pointer.encode())
        sibling["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": len(pointer)}
    return sibling
