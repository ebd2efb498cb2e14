"""Starting the double for a test, and ending it without a trace.

    async with running_ollama(folder) as ollama:
        ...  # ollama.url, await ollama.page(), await ollama.order("hang", after=2)

``install_ollama`` puts the double on a PATH under the name of the original.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.fakes.ollama.model_store import add_model

_ROOT = Path(__file__).parents[3]
_LISTENING = re.compile(r"Listening on (\S+) ")
_START_SECONDS = 30
_END_SECONDS = 10
# A shell starts it: a path with a space in it is no interpreter.
_LAUNCHER = """#!/bin/sh
"exec" "{python}" "$0" "$@"
import sys

sys.path.insert(0, {root!r})

from tests.fakes.ollama.server import main

sys.exit(main())
"""


class RunningOllama:
    """A running double. ``log`` grows with what it writes."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, models: Path, log: list[str]) -> None:
        self.process = process
        self.url = url
        self.models = models
        self.log = log
        self.client = httpx.AsyncClient(base_url=url, timeout=60)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def page(self) -> dict[str, Any]:
        """Counters, warnings, last request bodies, runners."""
        return (await self.client.get("/_double")).json()

    async def order(self, order: str, **details: Any) -> None:
        """Orders what ``control`` describes."""
        with suppress(httpx.RemoteProtocolError, httpx.ReadError):  # it may die of it
            (await self.client.post(f"/_double/{order}", json=details)).raise_for_status()


@asynccontextmanager
async def running_ollama(
    folder: Path,
    *,
    models: Path | None = None,
    environment: Mapping[str, str] | None = None,
    version: str = "0.33.3",
    reload_seconds: float = 0.05,
    registry: str = "",
    port: int = 0,
) -> AsyncIterator[RunningOllama]:
    """A double with the pocket model, or with the models of another store, until the block ends."""
    if models is None:
        models = folder / "models"
        add_model(models)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.ollama.server", "serve"),
        cwd=_ROOT,
        env={
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("OLLAMA_", "LLAMA_"))
            },
            "OLLAMA_HOST": f"127.0.0.1:{port}",
            "OLLAMA_MODELS": str(models),
            "OLLAMA_DOUBLE_VERSION": version,
            "OLLAMA_DOUBLE_RELOAD_SECONDS": str(reload_seconds),
            "OLLAMA_DOUBLE_REGISTRY": registry,
            **(environment or {}),
        },
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    log: list[str] = []
    reading = None
    try:
        url = await asyncio.wait_for(_url(process, log), _START_SECONDS)
        reading = asyncio.create_task(_read(process, log))
        running = RunningOllama(process, url, models, log)
        async with running.client:
            yield running
    finally:
        await _end(process)
        if reading is not None:
            await reading


def install_ollama(folder: Path) -> Path:
    """Puts an executable ``ollama`` into the folder, for the front of a PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "ollama"
    program.write_text(_LAUNCHER.format(python=sys.executable, root=str(_ROOT)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return program


async def _url(process: asyncio.subprocess.Process, log: list[str]) -> str:
    async for line in process.stderr:
        log.append(line.decode().rstrip())
        if found := _LISTENING.search(log[-1]):
            return f"http://{found[1]}"
    raise AssertionError("the double did not start:\n" + "\n".join(log))


async def _read(process: asyncio.subprocess.Process, log: list[str]) -> None:
    while line := await process.stderr.readline():
        log.append(line.decode().rstrip())


async def _end(process: asyncio.subprocess.Process) -> None:
    runners: list[psutil.Process] = []
    if process.returncode is None:
        with suppress(psutil.NoSuchProcess):
            runners = psutil.Process(process.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
    _, left = await asyncio.to_thread(psutil.wait_procs, runners, timeout=_END_SECONDS)
    assert not left, f"runners outlived the double: {left}"
