"""The model folders that this engine can run: where they lie and what they say.

``engine`` owns one ``ModelFolders`` and asks it for the list. A folder is read once and then only when
size, time or inode of one of its files changed.
Invariant: ``scan`` blocks and belongs in a thread; it never raises for what it finds on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import ModelEntry, ModelFacts
from autotuned.engines.mlx.facts import model_facts
from autotuned.engines.stores.files import Notes
from autotuned.engines.stores.folders import StoreFolders
from autotuned.engines.stores.mlx import mlx_folders

_Identity = tuple[tuple[str, int, int, int], ...]
# What a folder says depends on these alone.
_ENDINGS = (".json", ".safetensors", ".jinja", ".model")


class ModelFolders:
    """Finds and remembers model folders. ``folders`` are beside those of the models folder and the stores."""

    def __init__(
        self, *, engine: str, models_folder: Path, stores: StoreFolders, folders: Iterable[Path] = ()
    ) -> None:
        self._engine = engine
        self._models_folder = models_folder
        self._stores = stores
        self._folders = tuple(folders)
        self._notes = Notes()
        self._known: dict[Path, tuple[_Identity, ModelFacts | None, str]] = {}

    def scan(self) -> tuple[ModelEntry, ...]:
        """All models there are now. Blocks: a ``stat`` for each file, headers for each new folder."""
        self._notes.begin()
        known: dict[Path, tuple[_Identity, ModelFacts | None, str]] = {}
        entries: dict[str, ModelEntry] = {}
        found = mlx_folders(self._models_folder, self._stores.huggingface, self._stores.lmstudio, self._notes)
        for name, folder in (*((folder.name, folder) for folder in self._folders), *found):
            if name in entries or folder in known:
                continue
            identity = _identity(folder)
            before = self._known.get(folder)
            if before is None or before[0] != identity:
                before = identity, *_read(folder)
            known[folder] = before
            _, facts, problem = before
            size_bytes = sum(size for file_name, size, _, _ in identity if file_name.endswith(".safetensors"))
            entries[name] = ModelEntry(
                id=name,
                engine=self._engine,
                path=str(folder),
                size_bytes=size_bytes,
                facts=facts,
                problem=problem,
            )
        self._known = known
        return tuple(entries.values())


def _identity(folder: Path) -> _Identity:
    """Name, size, time and inode of each file."""
    found = []
    try:
        for path in sorted(folder.iterdir()):
            if path.name.endswith(_ENDINGS):
                status = path.stat()
                found.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
    except OSError:
        return tuple(found)
    return tuple(found)


def _read(folder: Path) -> tuple[ModelFacts | None, str]:
    try:
        return model_facts(folder), ""
    except ModelInvalid as error:
        return None, error.message
