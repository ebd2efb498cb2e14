"""What tests of every part share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
_NOT_INSTALLED = "not installed"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which tests were left out because a program is missing that a person could install."""
    skipped = terminalreporter.getreports("skipped")
    reasons = Counter(str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple))
    for reason, count in sorted(reasons.items()):
        if _NOT_INSTALLED in reason:
            terminalreporter.write_line(f"left out: {reason.removeprefix('Skipped: ')}, {count} of them")


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


_CANNOT_MOUNT = 77


@pytest.fixture
def run_on_disk() -> Callable[..., str]:
    """``run_on_disk(program, folder, mount_options, *arguments)``: what a Python program prints.

    A file system in memory covers ``folder``, the program's first argument, for the life of the
    program and for its eyes alone.
    """

    def run(program: str, folder: Path, mount_options: str, *arguments: object) -> str:
        if shutil.which("unshare") is None:
            pytest.skip("a disk of its own needs Linux namespaces")
        script = (
            f'folder="$1"; program="$2"; shift 2; mount -t tmpfs -o {mount_options} tmpfs "$folder" '
            f'|| exit {_CANNOT_MOUNT}; exec "$0" -c "$program" "$folder" "$@"'
        )
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, sys.executable]
        ended = subprocess.run(
            [*command, folder, program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if ended.returncode == _CANNOT_MOUNT or ended.stderr.startswith("unshare:"):
            pytest.skip("this system lets nobody mount")
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run
