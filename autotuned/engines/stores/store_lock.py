"""One at a time gives a model of a store its name, or deletes one.

A pull takes the lock while it checks that all files of a model are there and gives the model its name,
``removal`` and ``hub_removal`` while they delete: so no file goes between that check and that name.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_NAME = ".lock"


@contextmanager
def store_locked(store: Path) -> Iterator[None]:
    """Waits for the lock, and holds it. Who may write to the store may take it. Raises ``OSError``."""
    store.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(store / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with suppress(PermissionError):  # another user's, who has done so
            os.fchmod(descriptor, stat.S_IMODE(store.stat().st_mode) & 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
