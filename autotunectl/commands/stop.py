"""autotunectl stop: stops the daemon and waits until it has."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from autotune.address import parse_address
from autotune.errors import DaemonNotRunning, DeadlineExceeded, ShuttingDown

from autotunectl.options import verb
from autotunectl.output import format_seconds
from autotunectl.session import Session

_POLL_SECONDS = 0.02
_GRACE_SECONDS = 25.0
"""What closing workers and databases may take after the drain: longer than the daemon's own backstop."""


@verb("stop")
def command(session: Session) -> None:
    """Stop the daemon.

    Running requests may finish first; new ones are refused. The models leave memory.
    """
    with session.client() as client:
        path = parse_address(client.address)
        try:
            response = client.shutdown()
        except ShuttingDown:
            drain_seconds = 60.0
        except DaemonNotRunning:
            _tell(session, stopped=False)
            return
        else:
            drain = response.drain_duration
            drain_seconds = drain.seconds + drain.nanos / 1e9
    timeout_seconds = drain_seconds + _GRACE_SECONDS
    if not _wait_gone(path, timeout_seconds):
        raise DeadlineExceeded(
            f"The daemon still serves {format_seconds(timeout_seconds)} after it was told to stop; "
            'look at it with "autotunectl status".'
        )
    _tell(session, stopped=True)


def _tell(session: Session, *, stopped: bool) -> None:
    if session.json:
        session.write_json({"stopped": stopped})
    else:
        session.write("Stopped the daemon.\n" if stopped else "No daemon is running.\n")


def _wait_gone(path: Path, timeout_seconds: float) -> bool:
    """Whether the daemon stopped listening in time. Its lock is free a moment later."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if not _listens(path):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
