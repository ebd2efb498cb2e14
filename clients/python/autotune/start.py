"""Makes sure that a daemon serves, starting one when none does. The CLI and scripts call it.

Invariant: however many clients call it at once, one daemon runs in the end, none of them is tied
to it, and each returns when it serves. The daemon's own file lock decides who wins; a loser's
daemon ends with status LOCK_HELD and the loser waits for the winner.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from autotune.address import SOCKET_NAME, parse_address
from autotune.channel import open_channel, resolved_address
from autotune.errors import DaemonUnreachable, from_rpc_error
from autotune.state import state_directory
from autotune.v1 import daemon_service_pb2, daemon_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT_SECONDS = 60.0
LOCK_HELD = 3
"""Exit status of a daemon that found another one running."""

_POLL_SECONDS = 0.02
_RESPAWN_SECONDS = 0.5
_PROBE_SECONDS = 2.0
_LOG_MAX_BYTES = 8 * 1024 * 1024


def ensure_daemon(
    address: str | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    timeout_seconds: float = START_TIMEOUT_SECONDS,
) -> bool:
    """Returns once a daemon serves ``address``; True if this call started it.

    The daemon that it starts is detached: it outlives this process and its terminal, and writes
    what it says to ``autotuned.log`` in the state folder. Raises DaemonUnreachable with the
    daemon's own last words when it could not start, and AddressInvalid.
    """
    place = resolved_address(address)
    with closing(open_channel(place)) as channel:
        if _health(channel, place) == health_pb2.HealthCheckResponse.SERVING:
            return False
        return _Start(place, environment).until_serving(channel, timeout_seconds)


def _health(channel: grpc.Channel, address: str) -> int | None:
    """The daemon's health; None when nobody answers."""
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_PROBE_SECONDS)
    except grpc.RpcError as error:
        if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
            return None
        raise from_rpc_error(error, address) from None
    status: int = answer.status
    return status


def _process_id(channel: grpc.Channel, address: str) -> int:
    stub = daemon_service_pb2_grpc.DaemonServiceStub(channel)
    try:
        info = stub.GetInfo(daemon_service_pb2.GetInfoRequest(), timeout=_PROBE_SECONDS)
    except grpc.RpcError as error:
        raise from_rpc_error(error, address) from None
    process_id: int = info.process_id
    return process_id


class _Start:
    """One attempt to get a daemon served, whoever starts it."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        self._address = address
        self._environment = dict(environment)
        self._runtime = _runtime_folder(address)
        self._log_path = state_directory(environment) / "autotuned.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._next_spawn = 0.0
        self._respawn_seconds = _RESPAWN_SECONDS
        self._words_from = 0

    def until_serving(self, channel: grpc.Channel, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        with _open_log(self._log_path) as log:
            while time.monotonic() < deadline:
                health = _health(channel, self._address)
                if health == health_pb2.HealthCheckResponse.SERVING:
                    return self._let_go(channel)
                if health is None and self._child is None and time.monotonic() >= self._next_spawn:
                    self._child = self._spawn(log)
                self._wait_a_moment(log)
        self._give_up()
        raise DaemonUnreachable(
            f"The daemon does not serve {self._address} after {timeout_seconds:g} s; "
            f"its log is {self._log_path}.",
            metadata={"address": self._address, "logFile": str(self._log_path)},
        )

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        self._words_from = log.seek(0, os.SEEK_END)
        # -P: a file of the user's current folder must not stand in for one of the daemon's modules.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "autotuned", "--set", f"paths.runtime={self._runtime}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=self._environment,
            start_new_session=True,
        )

    def _wait_a_moment(self, log: IO[bytes]) -> None:
        """Waits, at most until the child ends. Raises DaemonUnreachable when it ended for good."""
        if self._child is None:
            time.sleep(_POLL_SECONDS)
            return
        try:
            status = self._child.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return
        self._child = None
        self._next_spawn = time.monotonic() + self._respawn_seconds
        self._respawn_seconds *= 2
        if status == LOCK_HELD:
            return
        words = _last_line(log, self._words_from).removeprefix("autotuned: ")
        words = words or f"it ended with status {status} and said nothing."
        raise DaemonUnreachable(
            f"The daemon could not start: {words}",
            metadata={"address": self._address, "exitStatus": str(status), "logFile": str(self._log_path)},
        )

    def _let_go(self, channel: grpc.Channel) -> bool:
        """Leaves the daemon to itself; whether it is ours. A child is reaped should it end before us."""
        if self._child is None:
            return False
        threading.Thread(target=self._child.wait, name="autotuned-reaper", daemon=True).start()
        # A child that lost the race may not have noticed yet.
        return self._child.pid == _process_id(channel, self._address)

    def _give_up(self) -> None:
        if self._child is not None:
            self._child.terminate()
            threading.Thread(target=self._child.wait, name="autotuned-reaper", daemon=True).start()


def _runtime_folder(address: str) -> Path:
    """The runtime folder with which a daemon serves ``address``. Raises DaemonUnreachable when none does."""
    path = parse_address(address)
    if path.name != SOCKET_NAME:
        raise DaemonUnreachable(
            f"No daemon is running at {address}, and one can only be started for a socket that is called "
            f"{SOCKET_NAME}; unset AUTOTUNE_ADDRESS or start the daemon yourself.",
            metadata={"address": address},
        )
    return path.parent


@contextmanager
def _open_log(path: Path) -> Iterator[IO[bytes]]:
    """The log for appending, 0600; a nameless file where the folder cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _LOG_MAX_BYTES:
            path.replace(path.with_suffix(".log.1"))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        with tempfile.TemporaryFile() as nameless:
            yield nameless
        return
    with os.fdopen(descriptor, "r+b") as log:
        yield log


def _last_line(log: IO[bytes], start: int) -> str:
    """The last line that was written at or after ``start``."""
    log.seek(start)
    lines = log.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
