"""One repository in the cache of Hugging Face's libraries: which files are here, and where the rest goes.

``huggingface`` uses it in the worker. The layout is the libraries' own: the content of a file is
``blobs/<name of the content>``, what has come of it so far lies beside it as ``.incomplete``, and
``snapshots/<commit>/<path>`` is a link to it, or the file itself where there are no links.
Invariants: a snapshot names only what is complete and verified; ``refs/main`` changes last.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autotuned.engines.downloads.files import Wanted
from autotuned.engines.downloads.hub_choice import HubFile
from autotuned.engines.downloads.part import Hash, file_bytes, part_bytes
from autotuned.engines.stores.hub_removal import locks_of
from autotuned.engines.stores.store_lock import store_locked

INCOMPLETE = ".incomplete"

_SHA256_DIGITS = 64
# Held by every download of a repository, from its beginning to its end.
_IN_USE = "in-use.lock"
_CACHE_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of downloaded models.\n"
# What a disk without links says when it is asked for one.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class HubCache:
    """A repository in the cache, at one commit. ``use_links`` is False where the user wants copies.

    ``locks`` is the folder of its locks.
    """

    def __init__(self, cache: Path, name: str, commit: str, *, use_links: bool = True) -> None:
        folder = "--".join(("models", *name.split("/")))
        self._cache = cache
        self._repository = cache / folder
        self.locks = locks_of(cache, folder)
        self._commit = commit
        self._use_links = use_links
        self._moved: dict[str, Path] = {}

    def wanted(self, file: HubFile, host: str) -> Wanted:
        """The content of a file, as ``files`` fetches it. The hub names what is in Git itself as Git does."""
        return Wanted(
            target=self._blob(file),
            size_bytes=file.size_bytes,
            checksum=file.blob_name,
            host=host,
            new_hash=(
                hashlib.sha256
                if len(file.blob_name) == _SHA256_DIGITS
                else lambda: _git_hash(file.size_bytes)
            ),
            suffix=INCOMPLETE,
        )

    def is_here(self, file: HubFile) -> bool:
        """Whether the content is complete, in this snapshot or in another one."""
        return file.size_bytes in {file_bytes(self._blob(file)), file_bytes(self._pointer(file))}

    def missing_bytes(self, files: Iterable[HubFile]) -> int:
        """What has to come over the network: contents, less what came of them before. Counted once each."""
        missing = {file.blob_name: file for file in files if not self.is_here(file)}
        return sum(
            file.size_bytes - min(part_bytes(self._blob(file), INCOMPLETE), file.size_bytes)
            for file in missing.values()
        )

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Makes the folders, which no removal takes away meanwhile, not even between two files.

        Who may read the cache may read them. Raises OSError.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        os.umask(0o777 & ~self._cache.stat().st_mode)
        tag = self._cache / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(_CACHE_TAG)
        self.locks.mkdir(parents=True, exist_ok=True)
        with _opened(self.locks / _IN_USE) as descriptor:
            with store_locked(self.locks):  # a removal looks for this lock, and then removes, under that one
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                (self._repository / "blobs").mkdir(parents=True, exist_ok=True)
            yield

    @contextmanager
    def lock(self, file: HubFile) -> Iterator[bool]:
        """Whether nobody else fetches this content now; the libraries take the same lock. Raises OSError."""
        with _opened(self.locks / f"{file.blob_name}.lock") as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = True
            except BlockingIOError:
                is_ours = False
            yield is_ours

    def share(self, file: HubFile) -> None:
        """Who may read the cache may read a content that has just come. Raises OSError."""
        with suppress(FileNotFoundError):  # deleted already, which is found out in the end
            self._blob(file).chmod(stat.S_IMODE(self._cache.stat().st_mode) & 0o666)

    def finish(self, files: Iterable[HubFile], repository: Iterable[HubFile]) -> None:
        """Makes the snapshot and says that it is the current one; the model can be found from now on.

        Of all files of the repository those that lay in the snapshot that was the current one, and are the
        same now, go along. What has changed since is left in that snapshot. Raises OSError.
        """
        for file in files:
            self._link(file)
        before = self._current()
        if before not in {"", self._commit}:
            for file in repository:
                old = self._repository / "snapshots" / before / file.path
                if old.is_symlink() and old.resolve() == self._blob(file).resolve() and self.is_here(file):
                    self._link(file)
        self._write_current()

    def _link(self, file: HubFile) -> None:
        pointer, blob = self._pointer(file), self._blob(file)
        if file_bytes(pointer) == file.size_bytes:
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)
        if self._use_links:
            try:
                pointer.symlink_to(os.path.relpath(blob, pointer.parent))
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            else:
                return
        if blob.exists():
            blob.replace(pointer)
            self._moved[file.blob_name] = pointer
        else:  # another path has the same content
            shutil.copyfile(self._moved[file.blob_name], pointer)

    def _blob(self, file: HubFile) -> Path:
        return self._repository / "blobs" / file.blob_name

    def _pointer(self, file: HubFile) -> Path:
        return self._repository / "snapshots" / self._commit / file.path

    def _current(self) -> str:
        try:
            revision = (self._repository / "refs" / "main").read_text().strip()
        except (OSError, ValueError):
            return ""
        return revision if "/" not in revision and revision not in {".", ".."} else ""

    def _write_current(self) -> None:
        reference = self._repository / "refs" / "main"
        reference.parent.mkdir(parents=True, exist_ok=True)
        fresh = reference.with_name(f"main.{os.getpid()}.tmp")
        fresh.write_text(self._commit)
        fresh.replace(reference)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file to lock; closing it lets go of the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _git_hash(size_bytes: int) -> Hash:
    """Git's name of a content, which is the SHA-1 of a short header and the content."""
    return hashlib.sha1(f"blob {size_bytes}\0".encode(), usedforsecurity=False)
