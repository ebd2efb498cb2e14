"""One at a time gives a model of our store its name, or deletes one.

A pull takes the lock while it checks that all files of its manifest are there and writes the manifest,
``removal`` while it deletes: so no file goes between that check and that manifest.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".lock"


@contextmanager
def store_locked(store: Path) -> Iterator[None]:
    """Waits for the lock, and holds it. Raises ``OSError``."""
    store.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(store / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
