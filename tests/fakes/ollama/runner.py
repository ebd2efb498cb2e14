"""A runner: the child process with one model in one shape, its queue, and the hop to it.

The scheduler starts and stops it; answers stream from it.
Invariant: when ``stop`` returns the child is gone, and with it everything that it had computed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.ollama.models import Model
from tests.fakes.ollama.options import Options, RunnerOptions
from tests.fakes.ollama.problems import RUNNER_GONE, Problem
from tests.fakes.ollama.settings import Settings, runner_environment

_PROGRAM = Path(__file__).with_name("runner_process.py")
_BUFFER = re.compile(r"(\w+):\s+(\S+)\s+(model|KV|compute|output|RS)\s+buffer size\s*=\s*([\d.]+)\s*MiB")
# The threads of a small model wait for each other longer than they compute.
_SMALL_MODEL_BYTES = 64 << 20


class Runner:
    """One child, from its start to its end."""

    def __init__(self, *, model: Model, options: Options, context_shift: bool, settings: Settings) -> None:
        self.shape: RunnerOptions = options.runner
        self.context_length = options.runner.num_ctx
        self.environment = runner_environment()
        self.turns = asyncio.Semaphore(settings.parallel)
        self._folder = tempfile.TemporaryDirectory(prefix="od-")
        self._socket = str(Path(self._folder.name) / "r.sock")
        self.launch = {
            "model": str(model.blob),
            "socket": self._socket,
            "num_ctx": self.shape.num_ctx,
            "parallel": settings.parallel,
            "num_batch": self.shape.num_batch,
            "num_gpu": self.shape.num_gpu,
            "use_mmap": self.shape.use_mmap,
            "threads": self.shape.num_thread or (1 if model.size < _SMALL_MODEL_BYTES else -1),
            "context_shift": context_shift,
            "num_keep": options.num_keep,
            "embedding": model.embeds,
            "cache_type": settings.kv_cache_type,
            "flash_attention": settings.flash_attention,
        }
        self._buffers: dict[tuple[str, str, str], int] = {}
        self._last_error = ""
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None
        # The original keeps no connection either.
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self._socket),
            base_url="http://runner",
            headers={"connection": "close"},
            timeout=None,  # noqa: S113  # a long prompt is silent
        )

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else -1

    @property
    def size(self) -> int:
        """Bytes of all buffers, as the child's log counts them."""
        return sum(self._buffers.values())

    @property
    def size_vram(self) -> int:
        return sum(
            size for (_, backend, _), size in self._buffers.items() if not backend.startswith(("CPU", "BLAS"))
        )

    async def start(self) -> None:
        """Returns when the child serves. Raises ``Problem`` when it ends instead."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-B", str(_PROGRAM), json.dumps(self.launch)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._log = asyncio.create_task(self._read_log(self._process.stderr))
        if not await self._process.stdout.readline():
            await self._process.wait()
            await self._log
            raise Problem(f"llama-server process has terminated: {self._last_error or 'no reason given'}")

    async def stop(self) -> None:
        """Ends the child. It may be called at any time, and twice."""
        if self._process is not None:
            self._process.stdin.close()
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._log is not None:
            await self._log
        await self._client.aclose()
        self._folder.cleanup()

    def kill(self) -> None:
        """What the kernel does when memory is short."""
        os.kill(self.pid, signal.SIGKILL)

    async def healthy(self) -> bool:
        """Whether it answers."""
        try:
            return (await self._client.get("/health")).is_success
        except httpx.HTTPError:
            return False

    async def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One short call. Raises ``Problem`` with the child's own words."""
        try:
            answer = await self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise Problem(RUNNER_GONE) from error
        if answer.is_error:
            raise Problem(answer.text.strip(), answer.status_code)
        return answer.json()

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return (await self.call("/tokenize", {"content": text, "add_special": add_special}))["tokens"]

    async def apply_template(self, body: dict[str, Any]) -> str:
        return (await self.call("/apply-template", body))["prompt"]

    @asynccontextmanager
    async def events(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The events of a stream; leaving closes the connection, which is how the child is cancelled."""
        try:
            async with self._client.stream("POST", path, json=body) as answer:
                if answer.is_error:
                    raise Problem((await answer.aread()).decode().strip(), answer.status_code)
                yield _events(answer)
        except httpx.ConnectError as error:
            raise Problem(RUNNER_GONE) from error
        except httpx.HTTPError as error:
            raise Problem("an error was encountered while running the model: unexpected EOF") from error

    def described(self) -> dict[str, Any]:
        """For the double's own page."""
        return {
            "pid": self.pid,
            "shape": asdict(self.shape),
            "launch": self.launch,
            "environment": self.environment,
        }

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            text = line.decode(errors="replace").strip()
            if found := _BUFFER.search(text):
                self._buffers[found[1], found[2], found[3]] = int(float(found[4]) * (1 << 20))
            if "error" in text:
                self._last_error = text


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))
