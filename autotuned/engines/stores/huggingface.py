"""The cache of the Hugging Face libraries: ``models--publisher--name/snapshots/revision/file``.

Files of a snapshot are links to ``blobs``, which appear when their download is complete; until then
they lie beside them as ``.incomplete``. Invariant: of each repository one snapshot counts, the one
that ``refs/main`` names, else the newest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from autotuned.engines.stores.files import Note, StoredFile, entries, files_below, is_folder, read_text

_PREFIX = "models--"


def snapshots(folder: Path, note: Note) -> Iterator[tuple[str, str]]:
    """Name ("publisher/name", or "name" of old ones without a publisher) and snapshot of each repository."""
    for repository in entries(folder, note):
        if not repository.name.startswith(_PREFIX):
            continue
        snapshot = _current(repository.path, note)
        if snapshot is not None:
            yield repository.name.removeprefix(_PREFIX).replace("--", "/"), snapshot


def gguf_files(folder: Path, note: Note) -> Iterator[StoredFile]:
    """The GGUF files of all repositories, those in folders of a repository included."""
    for name, snapshot in snapshots(folder, note):
        for path in files_below(snapshot, ".gguf", note):
            yield StoredFile(path=path, folder=name)


def _current(repository: str, note: Note) -> str | None:
    revision = (read_text(f"{repository}/refs/main", note) or b"").decode(errors="replace").strip()
    named = f"{repository}/snapshots/{revision}"
    # What the file says is a name in the folder, never a way out of it.
    is_name = revision not in {"", ".", ".."} and not {"/", "\\", "\0"} & set(revision)
    if is_name and os.path.isdir(named):  # noqa: PTH112 - hundreds of paths a scan, which are texts already
        return named
    newest: tuple[int, str] | None = None
    for entry in entries(f"{repository}/snapshots", note):
        if not is_folder(entry, follow=False):
            continue
        try:
            candidate = entry.stat().st_mtime_ns, entry.path
        except OSError:
            continue
        newest = candidate if newest is None else max(newest, candidate)
    return None if newest is None else newest[1]
