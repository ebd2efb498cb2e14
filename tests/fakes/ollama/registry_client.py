"""What the double asks of a registry, and the words in which the original tells what went wrong.

``pull`` takes manifests with it, ``blob_download`` files. Invariant: what a registry or the way to it does wrong
is a ``Problem`` in Go's words.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import httpx

from tests.fakes.ollama.names import DEFAULT_HOST, ModelName
from tests.fakes.ollama.problems import Problem

NOT_THERE = "file does not exist"
_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_FIRST_ERROR = 400
_REALM = re.compile(r'realm="([^"]*)"')


class RegistryClient:
    """Requests for one pull. ``usual`` is asked for names without a host; "" where there is none."""

    def __init__(self, client: httpx.AsyncClient, name: ModelName, *, usual: str, insecure: bool) -> None:
        self._client = client
        self._name = name
        is_usual = name.host.lower() == DEFAULT_HOST
        # The original's own is asked with TLS; the one of the double, in its place, has none.
        self._host = usual if is_usual else name.host
        self._scheme = "http" if insecure or is_usual else "https"

    async def manifest(self) -> bytes:
        """The manifest as it is. Raises ``Problem``."""
        if not self._host:
            raise Problem(NOT_THERE)
        async with self._answer(
            "GET", self._url("manifests", self._name.tag), {"Accept": _MANIFEST_TYPE}
        ) as answer:
            return await answer.aread()

    async def blob_size(self, digest: str) -> int:
        """What the file has, by the head of its answer. Raises ``Problem``."""
        async with self._answer("HEAD", self._url("blobs", digest), follow=True) as answer:
            return int(answer.headers.get("Content-Length") or 0)

    async def blob_url(self, digest: str) -> str:
        """Where the file is: the other host that the registry names. Raises ``Problem``."""
        async with self._answer("GET", self._url("blobs", digest)) as answer:
            if answer.status_code not in {200, 307}:
                raise Problem(f"unexpected status code {answer.status_code}")
            location = answer.headers.get("Location")
            if not location:
                raise Problem("http: no Location header in response")
            return str(location)

    async def part(self, url: str, first: int, last: int) -> AsyncIterator[bytes]:
        """The bytes of a part, whatever the status. Raises ``Problem``, "unexpected EOF" for a broken one."""
        try:
            async with self._client.stream("GET", url, headers={"Range": f"bytes={first}-{last}"}) as answer:
                async for piece in answer.aiter_raw():
                    yield piece
        except httpx.HTTPError as error:
            if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                raise Problem("unexpected EOF") from error
            raise Problem(_words(error)) from error

    def _url(self, kind: str, what: str) -> str:
        return f"{self._scheme}://{self._host}/v2/{self._name.namespace}/{self._name.model}/{kind}/{what}"

    @asynccontextmanager
    async def _answer(
        self, method: str, url: str, headers: dict[str, str] | None = None, *, follow: bool = False
    ) -> AsyncIterator[httpx.Response]:
        try:
            async with self._client.stream(method, url, headers=headers, follow_redirects=follow) as answer:
                await self._check(answer)
                yield answer
        except httpx.HTTPError as error:
            raise Problem(f'{method.capitalize()} "{url}": {_words(error)}') from error

    async def _check(self, answer: httpx.Response) -> None:
        if answer.status_code == _UNAUTHORIZED:
            realm = _REALM.search(answer.headers.get("WWW-Authenticate", ""))
            await self._ask_token(realm[1] if realm else "")
        if answer.status_code == _NOT_FOUND:
            raise Problem(NOT_THERE)
        if answer.status_code >= _FIRST_ERROR:
            body = (await answer.aread()).decode(errors="replace")
            raise Problem(f"{answer.status_code}: {body}")

    async def _ask_token(self, realm: str) -> NoReturn:
        """Nobody has signed the double in, so that no token that it gets is one that helps."""
        asked = httpx.URL(realm).netloc.decode()
        if asked != self._host:
            raise Problem(f'realm host "{asked}" does not match original host "{self._host}"')
        answer = await self._client.get(realm)
        if answer.status_code >= _FIRST_ERROR:
            raise Problem(f"{answer.status_code}: {answer.text}")
        raise Problem("unauthorized: access denied")


def _words(error: httpx.HTTPError) -> str:
    url = error.request.url
    if isinstance(error, httpx.ConnectError):
        if "WRONG_VERSION_NUMBER" in str(error) or "record layer" in str(error).lower():
            return "tls: first record does not look like a TLS handshake"
        if "name" in str(error).lower():
            return f"dial tcp: lookup {url.host}: no such host"
        port = url.port or {"https": 443}.get(url.scheme, 80)
        return f"dial tcp {url.host}:{port}: connect: connection refused"
    return "EOF"


async def pause(seconds: float) -> None:
    """Between two tries: a hundredth of what the original waits."""
    await asyncio.sleep(seconds / 100)
