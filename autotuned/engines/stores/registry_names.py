"""Names of models in registries, and where such a model lies in a store of Ollama's layout.

``downloads`` and ``removal`` use it. Invariant: whatever a name says, its path is four folders below the root
of the manifests; no part of it leads out of there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from autotuned.engines.stores.ollama import PUBLIC_HOSTS, PUBLIC_NAMESPACE, shown_name

PUBLIC_HOST = "registry.ollama.ai"
LATEST = "latest"
MANIFEST_ROOTS = ("manifests-v2", "manifests")

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}(:[0-9]{1,5})?")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryName:
    """A name with all of its parts."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def shown(self) -> str:
        """As Ollama shows it, and as the model will be called."""
        return shown_name(self.host, self.namespace, self.model, self.tag)

    @property
    def is_public(self) -> bool:
        """Whether it is of the registry that names without a host mean."""
        return self.host == PUBLIC_HOST

    def manifest(self, store: Path, root: str = "manifests") -> Path:
        """Where its manifest lies."""
        return store / root / self.host / self.namespace / self.model / self.tag


def registry_name(text: str) -> RegistryName | None:
    """The parts of "host/namespace/model:tag", the usual ones where they are left out; None: it is none."""
    *path, last = text.split("/")
    model, colon, tag = last.partition(":")
    if len(path) > 2:  # noqa: PLR2004 - host and namespace
        return None
    namespace = path.pop() if path else PUBLIC_NAMESPACE
    host = path.pop() if path else PUBLIC_HOST
    parts = namespace, model, tag if colon else LATEST
    if not _HOST.fullmatch(host) or not all(map(_PART.fullmatch, parts)):
        return None
    # One name for what is shown alike.
    host = PUBLIC_HOST if host.lower() in PUBLIC_HOSTS else host.lower()
    if namespace.lower() == PUBLIC_NAMESPACE:
        namespace = PUBLIC_NAMESPACE
    return RegistryName(host=host, namespace=namespace, model=model, tag=parts[2])


def blob_path(store: Path, digest: str) -> Path | None:
    """Where the file of a digest "sha256:..." lies; None where that is no SHA-256."""
    match = _DIGEST.fullmatch(digest)
    return None if match is None else store / "blobs" / f"sha256-{match[1]}"
