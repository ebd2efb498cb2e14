"""Removes a model's files from the cache of Hugging Face's libraries.

``deletion`` calls it in a thread, with paths of ``huggingface.gguf_files`` or of the files of an MLX folder;
it needs no library. Invariants: nothing outside the cache is touched, no content that another link names, and
nothing of a repository that something is being downloaded of, but the files that were named.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from autotuned.engines.stores.store_lock import LOCK_NAME, store_locked

_REPOSITORY_PREFIX = "models--"
_SNAPSHOTS, _BLOBS = "snapshots", "blobs"
# repository, "snapshots", commit, and at least a name
_LEAST_PARTS = 4


def delete_hub_files(cache: Path, snapshot_paths: Iterable[Path | str]) -> int:
    """Removes the files of snapshots and what only they used; the count of bytes that are free now.

    A file goes from all snapshots of its repository: of two commits the older one would appear in its place.
    A link goes with its content, where no other link names that. A file that is no link is the content.
    Of a repository that has nothing left the folders go, too. What is gone already is no error. Blocks.

    Raises:
        ValueError: a path that is no file of a snapshot of this cache; nothing was removed.
        OSError: a file cannot be removed.
    """
    root = Path(os.path.abspath(cache))  # noqa: PTH100 - resolve() would follow the links
    paths = [Path(os.path.abspath(path)) for path in snapshot_paths]  # noqa: PTH100 - the same
    for path in paths:
        _check(root, path)
    freed_bytes = 0
    for name in sorted({path.relative_to(root).parts[0] for path in paths}):
        repository = root / name
        with store_locked(locks_of(root, name)):
            mine = [path for path in paths if path.is_relative_to(repository)]
            freed_bytes += sum(_remove(root, repository, path) for path in _in_all(repository, mine))
            freed_bytes += _tidy(root, repository)
    return freed_bytes


def locks_of(cache: Path, folder_name: str) -> Path:
    """Where the locks of a repository lie, whose folder in the cache is called so."""
    return cache / ".locks" / folder_name


def _check(root: Path, path: Path) -> None:
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    is_snapshot = (
        len(parts) >= _LEAST_PARTS and parts[0].startswith(_REPOSITORY_PREFIX) and parts[1] == _SNAPSHOTS
    )
    # A folder on the way that is a link would lead out of the cache.
    if not is_snapshot or path.parent.resolve() != root.resolve() / path.parent.relative_to(root):
        message = f'"{path}" is no file of a model in the cache "{root}".'
        raise ValueError(message)
    if path.is_dir() and not path.is_symlink():
        message = f'"{path}" is a folder; name its files.'
        raise ValueError(message)


def _in_all(repository: Path, paths: Iterable[Path]) -> list[Path]:
    """The same files in each snapshot that is a folder."""
    snapshots = repository / _SNAPSHOTS
    inner = dict.fromkeys(Path(*path.relative_to(snapshots).parts[1:]) for path in paths)
    found = []
    for snapshot in sorted(snapshots.glob("*")):
        for name in inner:
            path = snapshot / name
            is_within = path.parent.resolve() == snapshots.resolve() / path.parent.relative_to(snapshots)
            if is_within and (path.is_symlink() or path.is_file()):
                found.append(path)
    return found


def _remove(root: Path, repository: Path, path: Path) -> int:
    if not path.is_symlink():
        size_bytes = path.stat().st_size
        path.unlink()
        return size_bytes
    blob = _target(path)
    path.unlink()
    if blob.parent != repository / _BLOBS or _is_named(repository, blob):
        return 0
    return _remove_blob(root, blob)


def _target(link: Path) -> Path:
    """Where a link leads, one step."""
    return Path(os.path.normpath(link.parent / link.readlink()))


def _is_named(repository: Path, blob: Path) -> bool:
    """Whether a link of any snapshot leads to the content."""
    for folder, _, names in os.walk(repository / _SNAPSHOTS):
        for name in names:
            link = Path(folder, name)
            if link.is_symlink() and _target(link) == blob:
                return True
    return False


def _remove_blob(root: Path, blob: Path) -> int:
    """The content, and where it is a link into the store that all repositories share, that, too."""
    if blob.is_symlink():
        shared = _target(blob)
        blob.unlink()
        return _sweep(root, shared)
    if not blob.is_file():
        return 0
    size_bytes = blob.stat().st_size
    blob.unlink()
    return size_bytes


def _sweep(root: Path, shared: Path) -> int:
    """Removes a shared content when its list of users is there and has none left, as the libraries do."""
    if shared.parent.parent != root / _BLOBS or not shared.is_file() or shared.is_symlink():
        return 0
    users = shared.with_name(f"{shared.name}.refs")
    descriptor = os.open(
        shared.with_name(f"{shared.name}.lock"),
        os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
        0o666,
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            lines = users.read_text().splitlines()
        except (OSError, ValueError):
            return 0
        if any((root / line).is_symlink() and _target(root / line) == shared for line in lines if line):
            return 0
        size_bytes = shared.stat().st_size
        shared.unlink()
        users.unlink()
    finally:
        os.close(descriptor)
    return size_bytes


def _tidy(root: Path, repository: Path) -> int:
    """Removes empty folders of snapshots, and of a repository without a file all that is left of it."""
    snapshots = repository / _SNAPSHOTS
    for folder, _, _ in sorted(os.walk(snapshots), reverse=True):
        if not os.listdir(folder):  # noqa: PTH208 - the names of the walk are texts
            Path(folder).rmdir()
    if snapshots.exists() or _is_being_fetched(locks_of(root, repository.name)):
        return 0
    # Contents without a link are parts of downloads that broke off, and nobody's.
    left = [path for path in (repository / _BLOBS).glob("*") if path.is_file() and not path.is_symlink()]
    freed_bytes = sum(path.stat().st_size for path in left)
    shutil.rmtree(repository, ignore_errors=True)
    return freed_bytes


def _is_being_fetched(locks: Path) -> bool:
    """Whether somebody holds the lock of a content or of a whole download; in doubt, yes.

    The libraries take those of contents as downloads here do.
    """
    return any(path.name != LOCK_NAME and _may_be_held(path) for path in locks.glob("*.lock"))


def _may_be_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return True  # another user's, perhaps
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
