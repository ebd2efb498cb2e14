"""Deletes a model of our own store: its manifest, and the files that no other model needs.

The engine whose store it is calls it. Invariants: nothing outside ``manifests``, ``manifests-v2`` and
``blobs`` is touched; a file that any manifest may mean, damaged ones included, stays; so does one that is
being fetched. What was fetched for no model, and has not been touched for a week, goes with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from autotuned.core.errors import ModelNotFound
from autotuned.engines.stores.files import MAX_TEXT_BYTES, entries
from autotuned.engines.stores.ollama import PUBLIC_HOSTS
from autotuned.engines.stores.registry_names import MANIFEST_ROOTS, RegistryName, registry_name
from autotuned.engines.stores.store_lock import store_locked

PART = ".part"
LEFT_BEHIND_SECONDS = 7 * 24 * 3600.0

_DIGEST = re.compile(rb"sha256[:-]([0-9a-fA-F]{64})")
_BLOB = re.compile(r"sha256-([0-9a-f]{64})")


def delete_registry_model(store: Path, name: str) -> int:
    """Deletes the model of this name; returns the bytes that are free again.

    Raises ``ModelNotFound``, and ``OSError`` where the disk refuses.
    """
    parsed = registry_name(name)
    if parsed is None:
        raise ModelNotFound(name, "", advice="nothing was deleted.")
    with store_locked(store):
        mine = [path for path in _paths(store, parsed) if path.is_symlink() or path.is_file()]
        if not mine:
            raise ModelNotFound(name, "", advice="nothing was deleted.")
        meant = set[str]().union(*(_meant_at_most(store, path) for path in mine))
        freed_bytes = sum(_removed(path) for path in mine)
        return freed_bytes + _unneeded_removed(store, meant)


@contextlib.contextmanager
def superseded_deleted(store: Path, name: RegistryName) -> Iterator[None]:
    """Around the replacement of a model's manifest, under the store's lock: deletes what it alone needed.

    Nothing is deleted where the manifest of another model cannot be read.
    """
    meant = _meant_at_most(store, name.manifest(store))
    yield
    with contextlib.suppress(OSError):  # the model is here; what is in its way goes another time
        _unneeded_removed(store, meant)


def _unneeded_removed(store: Path, meant: set[str]) -> int:
    """Deletes what no manifest means, of these files and of those that were left behind; tells the bytes."""
    try:
        unneeded = (meant | _left_behind(store)) - _meant_by_all(store)
    except OSError:
        return 0  # a manifest that cannot be read may mean any of them
    return sum(_blob_removed(store, digest) for digest in sorted(unneeded))


def _paths(store: Path, name: RegistryName) -> Iterator[Path]:
    """Where its manifest may lie."""
    hosts = sorted(PUBLIC_HOSTS) if name.is_public else [name.host]
    for root in MANIFEST_ROOTS:
        for host in hosts:
            yield store / root / host / name.namespace / name.model / name.tag


def _meant_by_all(store: Path) -> set[str]:
    meant: set[str] = set()
    for root in MANIFEST_ROOTS:
        for path in _manifests(store / root):
            meant |= _meant(store, path)
    return meant


def _manifests(root: Path) -> Iterator[Path]:
    def refuse(folder: Path | str, reason: str) -> None:
        raise OSError(f"{folder}: {reason}")

    for host in entries(root, refuse):
        for namespace in entries(host.path, refuse):
            for model in entries(namespace.path, refuse):
                for tag in entries(model.path, refuse):
                    yield Path(tag.path)


def _left_behind(store: Path) -> set[str]:
    """The files that nobody has touched for long: a download that was broken off, perhaps."""
    until = time.time() - LEFT_BEHIND_SECONDS
    digests = set()
    with os.scandir(store / "blobs") as found:
        for entry in found:
            match = _BLOB.fullmatch(entry.name.removesuffix(PART))
            with contextlib.suppress(FileNotFoundError):  # a download has just given it its name
                if match and entry.stat(follow_symlinks=False).st_mtime < until:
                    digests.add(match[1])
    return digests


def _meant_at_most(store: Path, path: Path) -> set[str]:
    """What a manifest means as far as it can be read."""
    try:
        return _meant(store, path)
    except OSError:
        return set()


def _meant(store: Path, path: Path) -> set[str]:
    """What a manifest means: itself where it is a link to a blob, its files, and those of manifests in it."""
    meant = set()
    if path.is_symlink() and (match := _BLOB.fullmatch(path.readlink().name)):
        meant.add(match[1])
    text = _begin(path)
    if len(text) > MAX_TEXT_BYTES:
        raise OSError(f"{path} is no manifest")
    digests = _digests(text)
    if b'"manifests"' in text:
        for digest in list(digests):
            digests |= _digests(_begin(store / "blobs" / f"sha256-{digest}"))
    return meant | digests


def _digests(text: bytes) -> set[str]:
    return {digest.decode().lower() for digest in _DIGEST.findall(text)}


def _begin(path: Path) -> bytes:
    """A file, or one byte more of its beginning than a manifest may have; nothing where it is missing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_TEXT_BYTES + 1)


def _removed(path: Path) -> int:
    """Deletes a manifest, its leftovers, and the folders that are empty without it."""
    size_bytes = path.lstat().st_size
    path.unlink()
    for leftover in path.parent.glob(f".{path.name}.*{PART}"):
        leftover.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in list(path.parents)[:3]:
            folder.rmdir()
    return size_bytes


def _blob_removed(store: Path, digest: str) -> int:
    blob = store / "blobs" / f"sha256-{digest}"
    part = blob.with_name(blob.name + PART)
    freed_bytes = _unlinked(blob)
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return freed_bytes
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        freed_bytes += _unlinked(part)
    except BlockingIOError:
        pass  # another download of it is under way
    finally:
        os.close(descriptor)
    return freed_bytes


def _unlinked(path: Path) -> int:
    try:
        status = path.lstat()
        path.unlink()
    except FileNotFoundError:
        return 0
    return status.st_size
