"""What tests of every part share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """``with unprivileged():`` runs without root's powers; for everybody else it changes nothing."""

    @contextmanager
    def drop() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return drop


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """An empty folder that nobody may write to; unlike ``tmp_path``, other users can reach it."""
    folder = Path(tempfile.mkdtemp(prefix="autotune-"))
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)
