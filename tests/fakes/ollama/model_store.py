"""A folder of models as Ollama keeps them: OCI manifests, and blobs named by their SHA-256.

Tests lay models out with ``add_model``; ``describe`` reads them for the server.
Invariant: what is written is what the original writes for ``ollama create``, byte layout of the
manifest included, so that its digest is the one of ``/api/tags``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from tests.fakes.ollama.gguf_content import GgufContent, read_content
from tests.fakes.ollama.names import parse_name

POCKET = Path(__file__).parents[3] / "autotuned" / "data" / "pocket.gguf"
MODEL_MEDIA_TYPE = "application/vnd.ollama.image.model"
TEMPLATE_MEDIA_TYPE = "application/vnd.ollama.image.template"
SYSTEM_MEDIA_TYPE = "application/vnd.ollama.image.system"
PARAMS_MEDIA_TYPE = "application/vnd.ollama.image.params"
LICENSE_MEDIA_TYPE = "application/vnd.ollama.image.license"
_CONFIG_MEDIA_TYPE = "application/vnd.docker.container.image.v1+json"
_MANIFEST_MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_MIT = "MIT License\n\nPermission is hereby granted, free of charge, to any person.\n"
_PLAIN_TEMPLATE = "{{ if .System }}{{ .System }}\n{{ end }}{{ .Prompt }}"


def add_model(
    store: Path,
    name: str = "pocket",
    *,
    gguf: Path = POCKET,
    parameters: dict[str, Any] | None = None,
    template: str | None = _PLAIN_TEMPLATE,
    system: str | None = None,
    license_text: str = _MIT,
) -> str:
    """Adds a model to the store, whose folders are made when they are missing. Returns its digest."""
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    texts = [
        (TEMPLATE_MEDIA_TYPE, template),
        (SYSTEM_MEDIA_TYPE, system),
        (PARAMS_MEDIA_TYPE, _compact(parameters) if parameters else None),
        (LICENSE_MEDIA_TYPE, license_text or None),
    ]
    layers = [_file_layer(store, gguf)]
    layers += [_layer(store, media_type, text.encode()) for media_type, text in texts if text is not None]
    config = _config(read_content(gguf), [layer["digest"] for layer in layers])
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_MEDIA_TYPE,
        "config": _layer(store, _CONFIG_MEDIA_TYPE, _compact(config).encode()),
        "layers": layers,
    }
    path = manifests_folder(store) / parse_name(name).path
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _compact(manifest).encode()
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def twin_of_pocket(path: Path, *, more_bytes: int = 32) -> Path:
    """Writes the pocket model with other bytes at its end: the same model in a blob of its own."""
    path.write_bytes(POCKET.read_bytes() + bytes(more_bytes))
    return path


def manifests_folder(store: Path) -> Path:
    return store / "manifests"


def blob_path(store: Path, digest: str) -> Path:
    """Where the store keeps the blob of this ``sha256:...`` digest."""
    return store / "blobs" / digest.replace(":", "-")


def human_count(count: int) -> str:
    """A number of parameters in the original's words: 8.0B, 1.2M, 134.52M."""
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if count >= unit:
            return f"{count / unit:.{digits}f}{letter}"
    return str(count)


def _config(content: GgufContent, digests: list[str]) -> dict[str, Any]:
    return {
        "model_format": "gguf",
        "model_family": content.architecture,
        "model_families": [content.architecture],
        "model_type": human_count(content.parameters_count),
        "file_type": content.quantization,
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": digests},
    }


def _file_layer(store: Path, gguf: Path) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(gguf.read_bytes()).hexdigest()
    blob = blob_path(store, digest)
    if not blob.exists():
        try:
            os.link(gguf, blob)
        except OSError:  # another file system
            shutil.copyfile(gguf, blob)
    return {"mediaType": MODEL_MEDIA_TYPE, "digest": digest, "size": blob.stat().st_size}


def _layer(store: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    blob_path(store, digest).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
