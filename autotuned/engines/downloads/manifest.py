"""The manifest of a model in a registry: the files that it promises, and whether llama.cpp can run them.

``registry`` uses it. Invariant: what is accepted here is what ``stores.ollama`` offers once it is on the
disk.
"""

from __future__ import annotations

import msgspec

from autotuned.engines.downloads.protocol import DownloadFailure
from autotuned.engines.stores.ollama import ADAPTER, MODEL, RUNNERS
from autotuned.engines.stores.registry_names import RegistryName

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = (
    f"{MANIFEST}, application/vnd.ollama.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json"
)


class Layer(msgspec.Struct, frozen=True, rename="camel"):
    """A file. ``digest`` is "sha256:..."."""

    media_type: str = ""
    digest: str = ""
    size: int = -1


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One that names files, or a list of others: ``manifests`` as they came."""

    config: Layer | None = None
    layers: list[Layer] | None = None
    manifests: list[msgspec.Raw] | None = None


class Child(msgspec.Struct, frozen=True):
    """One of a list: named by its digest, or with its layers in it."""

    runner: str = ""
    digest: str = ""
    layers: list[Layer] | None = None


def chosen(children: list[msgspec.Raw], name: RegistryName) -> tuple[Child, bytes]:
    """The one for GGUF files, and its text. Raises ``DownloadFailure`` where there is none."""
    read = [(msgspec.json.decode(raw, type=Child), bytes(raw)) for raw in children]
    for runner in RUNNERS:
        for child, text in read:
            if child.runner.lower() == runner:
                return child, text
    raise unfit(name, "it is for none of the runners that take GGUF files")


def files_of(manifest: Manifest, name: RegistryName) -> tuple[Layer, list[Layer]]:
    """The model, and all files, each once. Raises ``DownloadFailure`` for what would not run."""
    layers = manifest.layers or []
    kinds = [layer.media_type for layer in layers]
    if ADAPTER in kinds:
        raise unfit(name, "it is a model with an adapter")
    models = [layer for layer in layers if layer.media_type == MODEL]
    if len(models) != 1:
        raise unfit(name, "it has no GGUF file" if not models else "it is split over several files")
    config = [manifest.config] if manifest.config and manifest.config.digest else []
    return models[0], list({layer.digest: layer for layer in (*config, *layers)}.values())


def unfit(name: RegistryName, clause: str) -> DownloadFailure:
    """For what llama.cpp would not run."""
    return DownloadFailure(
        "UNSUPPORTED",
        f"llama.cpp cannot run {name.shown}: {clause}; pull it with Ollama, or take another one.",
    )
