"""Deletes a model from the store that it lies in, where that is the daemon's to do.

The engines that run files call ``delete_model`` in a thread. Invariant: nothing is touched before the store
is known; of what other programs look after nothing is ever deleted, and no link is followed.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from autotuned.core.errors import StorageFull, Unsupported
from autotuned.core.model import ModelEntry
from autotuned.engines.stores.belonging import Places, Store
from autotuned.engines.stores.files import Notes
from autotuned.engines.stores.ollama import OllamaStore


def delete_model(entry: ModelEntry, files: Sequence[Path], places: Places) -> int:
    """Deletes an entry whose ``files``, or whose folder, these are; returns the bytes freed. Blocks.

    What is gone already frees 0 bytes. Raises ``Unsupported`` with what to do instead where it is not the
    daemon's to delete, ``StorageFull`` where the disk refuses.
    """
    store = places.store_of(Path(entry.path))
    try:
        if store is Store.MODELS_FOLDER:
            return _delete_own(entry, files)
        if store is Store.REGISTRY:
            return _delete_from_registry(entry, places.registry)
        if store is Store.HUGGING_FACE and places.stores.huggingface is not None:
            return _delete_from_hub(files, places.stores.huggingface)
    except ValueError as error:
        raise Unsupported(
            f'"{entry.path}" is reached through a link to a folder; delete it where it is.', model=entry.id
        ) from error
    except PermissionError as error:
        raise Unsupported(
            f'"{entry.path}" may not be deleted by the user who runs autotune; delete it as its owner.',
            model=entry.id,
        ) from error
    except OSError as error:
        raise StorageFull(
            f'"{entry.path}" cannot be deleted: {error.strerror}; look after its disk and try again.',
            model=entry.id,
        ) from error
    raise Unsupported(_refusal(entry, store, places), model=entry.id)


def _refusal(entry: ModelEntry, store: Store, places: Places) -> str:
    if store is Store.PACKAGE:
        return f'"{entry.id}" comes with autotune and stays; there is nothing to delete.'
    if store is Store.CONFIGURED:
        return (
            f'"{entry.id}" is a file of yours that the configuration names; take "{entry.path}" out of '
            "models.files, and delete it yourself if it is to go."
        )
    if store is Store.OLLAMA:
        names = " ".join(name for folder in places.stores.ollama for name in _names(folder, entry))
        return f'"{entry.id}" is a model of Ollama; delete it there: "ollama rm {names or entry.id}".'
    if store is Store.LMSTUDIO:
        return f'"{entry.id}" is a model of LM Studio; delete it in its app, under "My Models".'
    return f'"{entry.id}" lies outside the folders that autotune looks after; delete "{entry.path}" yourself.'


def _names(folder: Path, entry: ModelEntry) -> list[str]:
    """What the entry is called in a store of Ollama's layout: its id, or all names where its id is none."""
    names = [stored.name for stored in OllamaStore(folder).files(Notes()) if stored.path == entry.path]
    return [entry.id] if entry.id in names else names


def _delete_own(entry: ModelEntry, files: Sequence[Path]) -> int:
    """A file with all its parts, or a folder."""
    for path in files:
        others = [] if path.is_symlink() else sorted(filter(_is_gguf, path.rglob("*")))
        if path.is_dir() and others:
            raise Unsupported(
                f'The folder of "{entry.id}" has another model in it; move "{others[0]}" elsewhere first.',
                model=entry.id,
            )
    return sum(_remove(path) for path in files)


def _remove(path: Path) -> int:
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            path.unlink()
            return _freed(status.st_mode, status.st_nlink, status.st_size)
        freed = sum(_size(each) for each in path.rglob("*"))
        shutil.rmtree(path)
    except FileNotFoundError:
        return 0
    return freed


def _size(path: Path) -> int:
    status = path.lstat()
    return _freed(status.st_mode, status.st_nlink, status.st_size)


def _freed(mode: int, links_count: int, size_bytes: int) -> int:
    """What goes with a name: nothing with a link, nor while the file has another name."""
    return size_bytes if stat.S_ISREG(mode) and links_count == 1 else 0


def _files_of(paths: Iterable[Path]) -> Iterable[Path]:
    """The files, those of a folder one by one, but its GGUF files: they are models of their own.

    One in the hub's cache is a link to its content.
    """
    for path in paths:
        if path.is_dir():
            files = (each for each in sorted(path.rglob("*")) if not each.is_dir())
            yield from (each for each in files if not _is_gguf(each))
        else:
            yield path


def _is_gguf(path: Path) -> bool:
    """Whether the list of models takes it for one."""
    return path.name.lower().endswith(".gguf")


def _delete_from_hub(files: Sequence[Path], cache: Path) -> int:
    from autotuned.engines.stores.hub_removal import delete_hub_files  # noqa: PLC0415 - few delete, all pay

    return delete_hub_files(cache, tuple(_files_of(files)))


def _delete_from_registry(entry: ModelEntry, registry: Path) -> int:
    """The name in the daemon's own store."""
    from autotuned.engines.stores.removal import delete_registry_model  # noqa: PLC0415 - few delete, all pay

    names = _names(registry, entry)
    if len(names) > 1:
        raise Unsupported(
            f'"{entry.path}" has several names in the registry store: {", ".join(names)}; delete it by one '
            "of them, and first rename the file in the models folder that has taken it.",
            model=entry.id,
        )
    return sum(delete_registry_model(registry, name) for name in names)
