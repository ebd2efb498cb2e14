"""Which store a model's files belong to, by where they lie: that decides who may delete them.

``deletion`` asks. Paths are compared as they are listed, and links are not followed: a link in the models
folder belongs to the models folder. Invariant: pure; of folders within each other the innermost counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from autotuned.engines.stores.folders import NO_STORES, StoreFolders


class Store(Enum):
    """Whose a file is."""

    PACKAGE = "package"
    CONFIGURED = "configured"
    """Named by the user, file by file."""
    MODELS_FOLDER = "models folder"
    REGISTRY = "registry"
    """The daemon's own store of registry models."""
    HUGGING_FACE = "hugging face"
    OLLAMA = "ollama"
    LMSTUDIO = "lm studio"
    NOWHERE = "nowhere"
    """In none of the places that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where models lie. ``packaged`` and ``configured`` are files or folders, the rest folders of many."""

    models_folder: Path
    registry: Path
    packaged: tuple[Path, ...] = ()
    configured: tuple[Path, ...] = ()
    stores: StoreFolders = NO_STORES

    def store_of(self, path: Path) -> Store:
        """The store that a model's first file, or its folder, belongs to."""
        if path in self.packaged:
            return Store.PACKAGE
        if path in self.configured:
            return Store.CONFIGURED
        around = [(len(root.parts), store) for root, store in self._roots() if path.is_relative_to(root)]
        # Of two equal roots the first one counts: what is the daemon's own stands before the rest.
        return max(around, key=lambda each: each[0], default=(0, Store.NOWHERE))[1]

    def _roots(self) -> Iterator[tuple[Path, Store]]:
        yield self.models_folder, Store.MODELS_FOLDER
        yield self.registry, Store.REGISTRY
        if self.stores.huggingface is not None:
            yield self.stores.huggingface, Store.HUGGING_FACE
        for folder in self.stores.ollama:
            yield folder, Store.OLLAMA
        if self.stores.lmstudio is not None:
            yield self.stores.lmstudio, Store.LMSTUDIO
