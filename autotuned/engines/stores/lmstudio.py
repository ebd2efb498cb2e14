"""The models that LM Studio keeps: ``publisher/repository/file.gguf``.

Downloads that are not complete end in ``.part``. Invariant: none; it is a plain folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from autotuned.engines.stores.files import Note, StoredFile, files_below


def gguf_files(folder: Path, note: Note) -> Iterator[StoredFile]:
    """The GGUF files of all repositories."""
    root = str(folder)
    for path in files_below(root, ".gguf", note):
        yield StoredFile(path=path, folder=os.path.dirname(path)[len(root) :].strip("/"))  # noqa: PTH120 - see ``StoredFile``
