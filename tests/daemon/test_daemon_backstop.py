"""The end of the daemon has a deadline, whatever hangs on the way."""

from __future__ import annotations

import subprocess
import sys
import tempfile

HANGING_DAEMON = """
import asyncio
import sys
from pathlib import Path

from autotuned import daemon
from autotuned.core.settings import DaemonSettings, PathSettings, Settings


class HangingEngine:
    name = "hanging"
    version = "1"

    async def close(self):
        await asyncio.Event().wait()


async def main():
    home = Path(sys.argv[1])
    stop = asyncio.Event()
    await daemon.run(
        Settings(
            paths=PathSettings(data=home / "data", runtime=home / "run", state=home / "state"),
            daemon=DaemonSettings(drain_seconds=0.0),
        ),
        parts=daemon.Parts(engines=lambda settings, clock: (HangingEngine(),)),
        stop=stop,
        on_serving=stop.set,
    )


daemon.BACKSTOP_SECONDS = 0.3
asyncio.run(main())
"""


def test_an_engine_that_never_closes_does_not_keep_the_daemon():
    with tempfile.TemporaryDirectory(prefix="at-", dir="/tmp") as home:
        ended = subprocess.run(
            [sys.executable, "-c", HANGING_DAEMON, home], capture_output=True, timeout=20, check=False
        )
    assert ended.returncode == 1, ended.stderr
