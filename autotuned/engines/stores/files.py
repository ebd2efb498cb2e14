"""What the stores have in common: a file of a store as a value, and careful reading of foreign folders.

The modules beside it use it. Invariant: whatever lies on the disk, nothing here raises, waits for a
pipe, follows a link in circles or reads more than a bound; what is left out is told to a ``Note``.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autotuned.engines.model_defaults import NO_DEFAULTS, ModelDefaults
from autotuned.log import fields

# Entries of one walk. A store with more than this is not one.
MAX_ENTRIES = 100_000
# The largest manifest or configuration that is read.
MAX_TEXT_BYTES = 1 << 20

Note = Callable[[Path | str, str], None]
"""Takes what was left out, and why."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A GGUF file of a store, or one part of a split one.

    ``name`` is what the store calls the model; "" where the name of the file says it. ``folder`` is
    where in the store it lies, as publisher and repository. ``size_bytes`` is what the whole file
    has; -1 where the store does not say. ``defaults`` is what the name brings besides the file. Paths are
    texts: a store has hundreds, at each scan.
    """

    path: str
    name: str = ""
    folder: str = ""
    size_bytes: int = -1
    defaults: ModelDefaults = NO_DEFAULTS


class Notes:
    """A ``Note`` that logs each reason once, for as long as it holds from scan to scan."""

    def __init__(self) -> None:
        self._before: set[tuple[str, str]] = set()
        self._now: set[tuple[str, str]] = set()

    def begin(self) -> None:
        """Starts a scan: what the one before did not see any more may be logged again."""
        self._before, self._now = self._now, set()

    def __call__(self, path: Path | str, reason: str) -> None:
        """Remembers and logs."""
        note = (str(path), reason)
        if note not in self._before and note not in self._now:
            _log.debug("left out of a store", extra=fields(path=path, reason=reason))
        self._now.add(note)


def entries(folder: Path | str, note: Note) -> list[os.DirEntry[str]]:
    """What lies in a folder, in alphabetical order and without hidden names; nothing where there is none."""
    try:
        with os.scandir(folder) as found:
            visible = [entry for entry in found if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        note(folder, f"it cannot be read: {error.strerror}")
        return []
    return sorted(visible, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str], *, follow: bool) -> bool:
    """Whether it is a folder, or with ``follow`` a link to one."""
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:
        return False


def files_below(folder: Path | str, suffix: str, note: Note) -> Iterator[str]:
    """Files of a folder and the folders in it whose name ends so, whatever the case.

    Links to files count as files, there or not; links to folders are not followed.
    """
    waiting, entries_count = [str(folder)], 0
    while waiting:
        below = []
        for entry in entries(waiting.pop(), note):
            entries_count += 1
            if entries_count > MAX_ENTRIES:
                note(folder, f"it has more than {MAX_ENTRIES:,} files; the rest is not looked at")
                return
            if is_folder(entry, follow=False):
                below.append(entry.path)
            elif entry.name.lower().endswith(suffix):
                yield entry.path
        waiting += reversed(below)


def read_text(path: Path | str, note: Note) -> bytes | None:
    """A small regular file; None where there is none, or it cannot be one of ours."""
    try:
        # Not to wait for whoever writes into a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        note(path, f"it cannot be read: {error.strerror}")
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            note(path, "it is not a regular file")
            return None
        content = os.read(descriptor, min(status.st_size, MAX_TEXT_BYTES) + 1)
    except OSError as error:
        note(path, f"it cannot be read: {error.strerror}")
        return None
    finally:
        os.close(descriptor)
    if len(content) > MAX_TEXT_BYTES:
        note(path, f"it has more than {MAX_TEXT_BYTES:,} bytes")
        return None
    return content
