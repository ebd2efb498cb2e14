"""Programs that serve HTTP on a loopback port for the time of a test, and are gone after it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import httpx
import psutil

from tests.engines.processes import until

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
END_SECONDS = 10.0


def free_port() -> int:
    """A port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@asynccontextmanager
async def running(
    arguments: Sequence[str | Path], *, ready_url: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program as a process, from when ``ready_url`` answers 200 until it and its children are gone.

    Its standard input stays open for as long as it should live.
    """
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-B",
            *arguments,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            await _ready(process, ready_url, log)
            yield process
        finally:
            await _end(process)


async def _ready(process: asyncio.subprocess.Process, url: str, log: IO[bytes]) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(START_SECONDS):
        while True:
            if process.returncode is not None:
                log.seek(0)
                raise AssertionError(f"the server ended with {process.returncode}: {log.read()[-4000:]!r}")
            try:
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            await asyncio.sleep(0.02)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills the program; its children see the end of their input, and are killed where they do not."""
    family = family_of(process.pid)
    if process.returncode is None:
        process.kill()
    await process.wait()
    try:
        await gone(family)
    finally:
        for member in family:
            if is_alive(member):
                member.kill()


def family_of(process_id: int) -> list[psutil.Process]:
    """A program that was started here and all below it, also when it is gone itself: they share a session."""
    return [member for member in psutil.process_iter() if _session_of(member.pid) == process_id]


def _session_of(process_id: int) -> int | None:
    try:
        return os.getsid(process_id)
    except (ProcessLookupError, PermissionError):
        return None


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still has memory; one that only waits to be collected has not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def gone(processes: Sequence[psutil.Process]) -> None:
    """Returns when none of the processes lives; fails when one still does after ten seconds."""
    await until(lambda: not any(map(is_alive, processes)), "the children of a server are gone", END_SECONDS)
