"""``/api/pull``: the manifest, the files that are missing, their checksums, and then the name.

Invariant: a name is written only when all of its files are there and verified, as in the original.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from tests.fakes.ollama import model_store
from tests.fakes.ollama.blob_download import BlobDownloads
from tests.fakes.ollama.models import Store
from tests.fakes.ollama.names import DEFAULT_HOST, ModelName, parse_name
from tests.fakes.ollama.problems import Problem
from tests.fakes.ollama.registry_client import NOT_THERE, RegistryClient

# The original waits without end.
_SILENCE_SECONDS = 3600.0
TENSOR_MEDIA_TYPE = "application/vnd.ollama.image.tensor"


class Puller:
    """The pulls of one server. ``registry`` stands for the original's own; "" is a machine without one."""

    def __init__(self, store: Store, registry: str) -> None:
        self._store = store
        self._registry = registry
        self._downloads = BlobDownloads(store.folder)
        self._client = httpx.AsyncClient(
            trust_env=False, timeout=_SILENCE_SECONDS, headers={"Accept-Encoding": "identity"}
        )

    async def close(self) -> None:
        """Ends what runs."""
        await self._downloads.close()
        await self._client.aclose()

    async def lines(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The lines of one pull. Raises ``Problem``."""
        name = parse_name(request.get("model") or request.get("name") or "")
        if not name.valid:
            raise Problem("invalid model name", 400)
        name = self._store.existing(name)
        before = self._store.digests(name)
        yield {"status": "pulling manifest"}
        client = RegistryClient(
            self._client, name, usual=self._registry, insecure=request.get("insecure", False)
        )
        pulled = await self._manifest(client, name)
        downloaded: set[str] = set()
        for digest in pulled.digests:
            if not model_store.blob_path(self._store.folder, digest).exists():
                downloaded.add(digest)
            async with aclosing(self._downloads.lines(client, digest)) as lines:
                async for line in lines:
                    yield line
        yield {"status": "verifying sha256 digest"}
        for digest in pulled.digests:
            if digest in downloaded:
                self._verify(digest)
        yield {"status": "writing manifest"}
        self._store.write(name, pulled.content)
        if unused := before - set(pulled.digests):
            yield {"status": "removing unused layers"}
            self._store.remove_unused(unused)
        yield {"status": "success"}

    async def _manifest(self, client: RegistryClient, name: ModelName) -> _Pulled:
        """Raises ``Problem``. Without a registry, what the store has is the registry's newest."""
        try:
            if not self._registry and name.host.lower() == DEFAULT_HOST:
                return _read(self._store.manifest(name))
            return _read(await client.manifest())
        except Problem as problem:
            if isinstance(problem, _NoRunner):
                raise
            raise Problem(f"pull model manifest: {problem.message}") from problem

    def _verify(self, digest: str) -> None:
        path = model_store.blob_path(self._store.folder, digest)
        found = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        if found != digest:
            path.unlink()
            raise Problem(f"digest mismatch, file must be downloaded again: want {digest}, got {found}")


@dataclass(frozen=True, slots=True)
class _Pulled:
    content: bytes
    digests: list[str]


class _NoRunner(Problem):
    """A model that no runner of the double takes."""


def _read(content: bytes | None) -> _Pulled:
    if content is None:
        raise Problem(NOT_THERE)
    try:
        manifest = json.loads(content)
    except ValueError as error:
        first = content.decode(errors="replace").lstrip()[:1]
        raise Problem(
            f"invalid character '{first}' looking for beginning of value"
            if first
            else "unexpected end of JSON input"
        ) from error
    layers = manifest.get("layers") or []
    if any(layer["mediaType"] == TENSOR_MEDIA_TYPE for layer in layers):
        raise _NoRunner("this model requires MLX support, but the MLX runtime is not available")
    config = (manifest.get("config") or {}).get("digest")
    return _Pulled(content, [*(layer["digest"] for layer in layers), *([config] if config else [])])
