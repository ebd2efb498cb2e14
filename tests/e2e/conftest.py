"""Real daemons, as processes of their own, in folders that vanish with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import autotune
import psutil
import pytest

from tests import alone

PATIENCE_SECONDS = 30.0


@dataclass
class RunningDaemon:
    """A daemon process with its folders and its address."""

    process: subprocess.Popen[bytes]
    home: Path
    environment: dict[str, str]
    address: str

    @property
    def runtime(self) -> Path:
        return self.home / "run"

    def words(self) -> str:
        """What it has logged so far."""
        return (self.home / "daemon.log").read_text(errors="replace")

    def stop(self) -> int:
        """Asks it to stop and waits; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


def make_environment(home: Path, **overrides: str) -> dict[str, str]:
    """An environment in which nothing outside ``home`` is touched."""
    foreign = ("AUTOTUNE_", "XDG_", "MAKE", "MFLAGS")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return {
        **inherited,
        "HOME": str(home),
        "AUTOTUNE_RUNTIME_DIR": str(home / "run"),
        "AUTOTUNE_DATA_DIR": str(home / "data"),
        "AUTOTUNE_STATE_DIR": str(home / "state"),
        **alone.ENVIRONMENT,
        "NO_COLOR": "1",
        **overrides,
    }


def spawn_daemon(home: Path, *arguments: str, wrapper: Sequence[str] = (), **overrides: str) -> RunningDaemon:
    """Starts a daemon and waits until it serves; a daemon that ends instead fails the test with its words."""
    environment = make_environment(home, **overrides)
    log = home / "daemon.log"
    with log.open("wb") as words:
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "autotuned", *arguments], env=environment, stderr=words
        )
    daemon = RunningDaemon(process, home, environment, f"unix:{home / 'run' / 'autotuned.sock'}")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while " serving " not in daemon.words():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            pytest.fail(f"the daemon did not start: {daemon.words()}")
        time.sleep(0.01)
    return daemon


@contextlib.contextmanager
def short_home() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    home = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def running_daemon(*arguments: str, wrapper: Sequence[str] = (), **overrides: str) -> Iterator[RunningDaemon]:
    """A daemon of its own; whatever it started must be gone afterwards."""
    with short_home() as home:
        daemon = spawn_daemon(home, *arguments, wrapper=wrapper, **overrides)
        family = psutil.Process(daemon.process.pid)
        try:
            yield daemon
        finally:
            children = family.children(recursive=True) if daemon.process.poll() is None else []
            daemon.stop()
            _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
            for process in alive:
                process.kill()
        assert not alive, f"the daemon left processes behind: {alive}"


@pytest.fixture(scope="session")
def daemon() -> Iterator[RunningDaemon]:
    """One daemon that many tests share."""
    with running_daemon() as running:
        yield running


@pytest.fixture
def own_daemon() -> Iterator[RunningDaemon]:
    """A daemon for one test alone."""
    with running_daemon() as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[autotune.Client]:
    """A client of the shared daemon."""
    with autotune.Client(daemon.address) as connected:
        yield connected
