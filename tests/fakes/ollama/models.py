"""The models of a store: found by name, listed, deleted, with what they are able to do.

Invariant: everything is read from the disk at each request, so a changed store is seen at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.ollama import model_store
from tests.fakes.ollama.answers import go_time
from tests.fakes.ollama.gguf_content import GgufContent, read_content
from tests.fakes.ollama.names import ModelName, parse_name
from tests.fakes.ollama.problems import NotFound, Problem


@dataclass(frozen=True, slots=True)
class Model:
    """One tag of the store."""

    name: ModelName
    digest: str
    blob: Path
    size: int
    modified_nanoseconds: int
    config: dict[str, Any]
    template: str
    system: str
    license: str
    parameters: dict[str, Any]

    @property
    def modified_at(self) -> str:
        return go_time(self.modified_nanoseconds)

    @property
    def content(self) -> GgufContent:
        return read_content(self.blob)

    @property
    def chat_template(self) -> str:
        return self.content.values.get("tokenizer.chat_template", "")

    @property
    def embeds(self) -> bool:
        return self.content.of_architecture("pooling_type") is not None

    @property
    def capabilities(self) -> list[str]:
        found = []
        template = self.chat_template
        if "tools" in template or "tool_call" in template:
            found.append("tools")
        if "<think>" in template and "</think>" in template:
            found.append("thinking")
        found.append("embedding" if self.embeds else "completion")
        if self.content.of_architecture("vision.block_count") is not None:
            found.append("vision")
        return found

    @property
    def details(self) -> dict[str, Any]:
        return {
            "parent_model": "",
            "format": self.config["model_format"],
            "family": self.config["model_family"],
            "families": self.config["model_families"],
            "parameter_size": self.config["model_type"],
            "quantization_level": self.config["file_type"],
        }

    def require(self, capability: str) -> None:
        """Raises ``Problem`` when the model is not able to do it."""
        if capability not in self.capabilities:
            raise Problem(f"{self.name.full} does not support {capability}", 400)


@dataclass(frozen=True, slots=True)
class Store:
    """The models below one folder."""

    folder: Path

    def names(self) -> Iterator[ModelName]:
        manifests = model_store.manifests_folder(self.folder)
        for path in sorted(manifests.glob("*/*/*/*")):
            yield ModelName(*path.relative_to(manifests).parts)

    def existing(self, name: ModelName) -> ModelName:
        """The name with its parts written as those of the models that are there."""
        host, namespace, model, tag = name.host, name.namespace, name.model, name.tag
        for other in self.names():
            host = other.host if other.host.lower() == host.lower() else host
            namespace = other.namespace if other.namespace.lower() == namespace.lower() else namespace
            model = other.model if other.model.lower() == model.lower() else model
            tag = other.tag if other.tag.lower() == tag.lower() else tag
        return ModelName(host, namespace, model, tag)

    def manifest(self, name: ModelName) -> bytes | None:
        """The manifest of exactly this name; None where there is none."""
        path = self._manifest_path(name)
        return path.read_bytes() if path.exists() else None

    def digests(self, name: ModelName) -> set[str]:
        """Its files; none where there is no such name."""
        path = self._manifest_path(name)
        return _digests(path) if path.exists() else set()

    def write(self, name: ModelName, manifest: bytes) -> None:
        """Gives the model its name."""
        path = self._manifest_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(manifest)

    def remove_unused(self, digests: set[str]) -> None:
        """Removes those of these blobs that no manifest names."""
        kept = {digest for name in self.names() for digest in self.digests(name)}
        for digest in digests - kept:
            model_store.blob_path(self.folder, digest).unlink(missing_ok=True)

    def find(self, text: str) -> Model:
        """The model of this name, whatever its case. Raises ``Problem``."""
        name = parse_name(text)
        if not name.valid:
            raise Problem("invalid model name", 400)
        for existing in self.names():
            if existing.full.lower() == name.full.lower():
                return self._read(existing)
        raise NotFound(text)

    def all(self) -> list[Model]:
        """Newest first, like the original's list."""
        models = [self._read(name) for name in self.names()]
        return sorted(models, key=lambda model: model.modified_nanoseconds, reverse=True)

    def delete(self, model: Model) -> None:
        """Removes the manifest, and the blobs that no other manifest names."""
        path = model_store.manifests_folder(self.folder) / model.name.path
        mine = _digests(path)
        path.unlink()
        self.remove_unused(mine)

    def _manifest_path(self, name: ModelName) -> Path:
        return model_store.manifests_folder(self.folder) / name.path

    def _read(self, name: ModelName) -> Model:
        path = self._manifest_path(name)
        raw = path.read_bytes()
        manifest = json.loads(raw)
        layers = {layer["mediaType"]: layer for layer in manifest["layers"]}

        def text(media_type: str) -> str:
            layer = layers.get(media_type)
            return self._blob(layer["digest"]).read_text() if layer else ""

        return Model(
            name=name,
            digest=hashlib.sha256(raw).hexdigest(),
            blob=self._blob(layers[model_store.MODEL_MEDIA_TYPE]["digest"]),
            size=sum(layer["size"] for layer in (*manifest["layers"], manifest["config"])),
            modified_nanoseconds=path.stat().st_mtime_ns,
            config=json.loads(self._blob(manifest["config"]["digest"]).read_text()),
            template=text(model_store.TEMPLATE_MEDIA_TYPE),
            system=text(model_store.SYSTEM_MEDIA_TYPE),
            license=text(model_store.LICENSE_MEDIA_TYPE),
            parameters=json.loads(text(model_store.PARAMS_MEDIA_TYPE) or "{}"),
        )

    def _blob(self, digest: str) -> Path:
        return model_store.blob_path(self.folder, digest)


def _digests(manifest_path: Path) -> set[str]:
    manifest = json.loads(manifest_path.read_bytes())
    return {layer["digest"] for layer in (*manifest["layers"], manifest["config"])}
