"""The processes under measurement: a daemon and a shim, in folders that vanish."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tests import alone

PATIENCE_SECONDS = 30.0
BYTECODE = Path("build/bench/bytecode")
"""Outside the tree, so that no start but the first compiles anything."""


@contextlib.contextmanager
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ab-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    """The folders of a daemon and its clients, and bytecode, which an installed package has as well."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("AUTOTUNE_", "XDG_")) and key != "PYTHONDONTWRITEBYTECODE"
    }
    return {
        **inherited,
        "HOME": str(folder),
        "PYTHONPYCACHEPREFIX": str(BYTECODE.absolute()),
        "AUTOTUNE_RUNTIME_DIR": str(folder / "run"),
        "AUTOTUNE_DATA_DIR": str(folder / "data"),
        "AUTOTUNE_STATE_DIR": str(folder / "state"),
        **alone.ENVIRONMENT,
    }


@contextlib.contextmanager
def daemon(
    folder: Path,
    *arguments: str,
    module: str = "autotuned",
    wrapper: Sequence[str] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A daemon that serves, and the seconds from its start to READY as it notified them.

    ``wrapper`` is a command that runs it in its own stead, for example in another control group;
    ``variables`` are beside those of ``environment``, or instead of them.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "notify"))
        listener.settimeout(PATIENCE_SECONDS)
        started = time.perf_counter()
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", module, *arguments],
            env={**environment(folder), **variables, "NOTIFY_SOCKET": str(folder / "notify")},
            stderr=subprocess.DEVNULL,
        )
        try:
            listener.recv(1024)
            yield process, time.perf_counter() - started
        finally:
            stop(process)
            (folder / "notify").unlink()


@contextlib.contextmanager
def shim(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A shim that answers, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune_shim", "--port", str(port)],
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port)
        yield process, port
    finally:
        stop(process)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.02)


def drop_from_cache(path: Path) -> None:
    """Writes a file to the disk and drops it from memory, so that whoever reads it pays for its pages."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_SECONDS)


def output(arguments: list[str], env: Mapping[str, str]) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(arguments, env=env, check=True, capture_output=True, text=True)
    return done.stdout


def run(arguments: list[str], env: Mapping[str, str]) -> float:
    """Seconds that a command takes from start to end; it must succeed."""
    started = time.perf_counter()
    subprocess.run(arguments, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started
