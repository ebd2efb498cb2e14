"""Stores as other programs lay them out, made file by file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tests.engines.gguf_files import LLAMA, gguf

MODEL = "application/vnd.ollama.image.model"
PUBLIC = "registry.ollama.ai/library"


def content(name: str = "", **values: object) -> bytes:
    """A GGUF file; another name makes another content."""
    return gguf(LLAMA | {"general.name": name or "some"} | values)


class Ollama:
    """A folder with manifests and blobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs").mkdir(parents=True)

    def blob(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs" / f"sha256-{digest}").write_bytes(data)
        return f"sha256:{digest}"

    def path(self, data: bytes) -> Path:
        """Where the blob of this content lies, or would lie."""
        return self.folder / "blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}"

    def layer(self, data: bytes, kind: str = MODEL) -> dict[str, object]:
        return {"mediaType": kind, "digest": self.blob(data), "size": len(data)}

    def manifest(self, name: str, manifest: object, root: str = "manifests") -> Path:
        path = self.folder / root / name.replace(":", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
        return path

    def model(self, name: str, data: bytes, *more: Mapping[str, object]) -> Path:
        """A model under a name like "registry.ollama.ai/library/qwen3:8b"."""
        return self.manifest(name, {"schemaVersion": 2, "layers": [self.layer(data), *more]})


class Hub:
    """The cache of the Hugging Face libraries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def repository(self, name: str) -> Path:
        return self.folder / f"models--{name.replace('/', '--')}"

    def snapshot(self, name: str, revision: str, *, main: bool = True, **files: bytes) -> Path:
        """A snapshot; "/" and "." in the names of its files are written as "__" and "_"."""
        root = self.repository(name)
        folder = root / "snapshots" / revision
        for short, data in files.items():
            self.file(name, revision, short.replace("__", "/").replace("_", "."), data)
        folder.mkdir(parents=True, exist_ok=True)
        if main:
            (root / "refs").mkdir(exist_ok=True)
            (root / "refs" / "main").write_text(revision)
        return folder

    def file(self, name: str, revision: str, file_name: str, data: bytes) -> Path:
        root = self.repository(name)
        blob = root / "blobs" / hashlib.sha256(data).hexdigest()
        link = root / "snapshots" / revision / file_name
        for folder in (blob.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link.symlink_to(blob)
        return link


def mlx_folder(folder: Path, *, tokenizer: str = "tokenizer.json", **config: object) -> Path:
    """A repository as MLX takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | config))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / tokenizer).write_text("{}")
    return folder
