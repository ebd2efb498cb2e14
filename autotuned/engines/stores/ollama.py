"""The models that Ollama keeps: a manifest for each name, and its layers as files named by their hash.

``ModelFiles`` of an engine owns one for each folder. A name is the path of its manifest,
``host/namespace/model/tag``; newer versions keep links to manifests in ``manifests-v2``, which wins.
A manifest may list others, one for each kind of runner.
Invariant: a manifest is read once for as long as it does not change, and no file outside ``blobs`` is
ever named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from autotuned.engines.model_defaults import ModelDefaults
from autotuned.engines.stores.files import Note, StoredFile, entries, read_text
from autotuned.engines.stores.ollama_layers import KINDS, defaults_of

PUBLIC_HOSTS = frozenset({"registry.ollama.ai", "ollama.com"})
PUBLIC_NAMESPACE = "library"
MODEL = "application/vnd.ollama.image.model"
ADAPTER = "application/vnd.ollama.image.adapter"
# The runners that take GGUF files, the preferred one first.
RUNNERS = ("ollama", "llamacpp")

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


class _Layer(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""
    size: int = -1


class _Manifest(msgspec.Struct, rename="camel"):
    layers: list[_Layer] | None = None
    manifests: list[_Manifest] | None = None
    runner: str = ""
    digest: str = ""


_decode = msgspec.json.Decoder(_Manifest).decode
_Identity = tuple[int, int, int, int]


class _Unfit(Exception):
    """A manifest that names nothing this can offer; the message says why."""


class OllamaStore:
    """One folder with ``manifests`` and ``blobs``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = folder / "blobs"
        self._known: dict[str, tuple[_Identity, StoredFile]] = {}

    def files(self, note: Note) -> Iterator[StoredFile]:
        """The file of each name, in alphabetical order; names that share a file come each with it."""
        known: dict[str, tuple[_Identity, StoredFile]] = {}
        for name, path in sorted(self._manifests(note).items()):
            try:
                identity = _identity(path)
                before = self._known.get(path)
                if before is None or before[0] != identity:
                    before = identity, self._stored_file(name, path, note)
            except (_Unfit, OSError) as error:
                note(path, str(error))
                continue
            known[path] = before
            yield before[1]
        self._known = known

    def _manifests(self, note: Note) -> dict[str, str]:
        """The path of the manifest of each name."""
        found: dict[str, str] = {}
        for root in ("manifests-v2", "manifests"):
            for host in entries(self._folder / root, note):
                for namespace in entries(host.path, note):
                    for model in entries(namespace.path, note):
                        for tag in entries(model.path, note):
                            name = shown_name(host.name, namespace.name, model.name, tag.name)
                            found.setdefault(name, tag.path)
        return found

    def _stored_file(self, name: str, path: str, note: Note) -> StoredFile:
        layers = self._layers(_parsed(read_text(path, note)), note)
        if any(layer.media_type == ADAPTER for layer in layers):
            raise _Unfit("it is a model with an adapter")
        models = [layer for layer in layers if layer.media_type == MODEL]
        if len(models) != 1:
            raise _Unfit("it has no GGUF file" if not models else "it is split over several files")
        return StoredFile(
            path=self._blob(models[0].digest),
            name=name,
            size_bytes=models[0].size,
            defaults=self._defaults(layers, note),
        )

    def _defaults(self, layers: list[_Layer], note: Note) -> ModelDefaults:
        """What the name brings: without that the model would not be the one of this name."""
        texts = {}
        for layer in layers:
            if layer.media_type in KINDS:
                text = read_text(self._blob(layer.digest), note)
                if text is None:
                    raise _Unfit("its system prompt, messages or parameters are missing or cannot be read")
                texts[layer.media_type] = text
        try:
            return defaults_of(texts)
        except (ValueError, RecursionError) as error:
            raise _Unfit("its system prompt, messages or parameters are damaged") from error

    def _layers(self, manifest: _Manifest, note: Note) -> list[_Layer]:
        """Those of the manifest, or of the one in its list that is for GGUF files."""
        if not manifest.manifests:
            return manifest.layers or []
        for runner in RUNNERS:
            for child in manifest.manifests:
                if child.runner.lower() == runner:
                    if child.layers or not child.digest:
                        return child.layers or []
                    return _parsed(read_text(self._blob(child.digest), note)).layers or []
        raise _Unfit("it is for none of the runners that take GGUF files")

    def _blob(self, digest: str) -> str:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise _Unfit("it names a file by something that is no SHA-256")
        return f"{self._blobs}/sha256-{match[1].lower()}"


def shown_name(host: str, namespace: str, model: str, tag: str) -> str:
    """The name as Ollama shows it: without host and namespace where they are the usual ones."""
    if host.lower() not in PUBLIC_HOSTS:
        return f"{host}/{namespace}/{model}:{tag}"
    if namespace.lower() != PUBLIC_NAMESPACE:
        return f"{namespace}/{model}:{tag}"
    return f"{model}:{tag}"


def _identity(path: str) -> _Identity:
    status = os.stat(path)  # noqa: PTH116 - hundreds of paths a scan, which are texts already
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _parsed(content: bytes | None) -> _Manifest:
    if content is None:
        raise _Unfit("its manifest is missing or cannot be read")
    try:
        return _decode(content)
    except (ValueError, RecursionError) as error:
        raise _Unfit("its manifest is damaged") from error
