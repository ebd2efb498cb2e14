"""Starts the double of LM Studio for a test."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.lmstudio.models import make_models_folder
from tests.fakes.lmstudio.settings import Settings
from tests.fakes.serving import free_port, running


@dataclass(frozen=True, slots=True, kw_only=True)
class LmStudio:
    """A server that is up, with its controls."""

    url: str  # without a path and without a slash at the end
    api_token: str | None
    models_folder: Path
    process: asyncio.subprocess.Process
    client: httpx.AsyncClient  # has the token, and the URL as its base

    async def state(self) -> dict[str, Any]:
        """What was loaded, unloaded and asked: ``loads``, ``unloads``, ``instances``, ``requests``..."""
        found: dict[str, Any] = (await self.client.get("/_double")).raise_for_status().json()
        return found

    async def arm(self, fault: str) -> None:
        """Makes the next request that gets there go wrong; ``faults.FAULTS`` has the names."""
        (await self.client.post("/_double/arm", json={"fault": fault})).raise_for_status()

    async def release(self) -> None:
        """Lets what hangs go on."""
        (await self.client.post("/_double/release")).raise_for_status()

    async def crash(self, instance_id: str) -> None:
        """Kills the engine of an instance, as when it crashes; the server stays."""
        (await self.client.post("/_double/crash", json={"instance_id": instance_id})).raise_for_status()

    async def die(self) -> None:
        """Kills the server."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def running_lmstudio(
    *, models: Sequence[str] = ("pocket",), port: int | None = None, **settings: Any
) -> AsyncIterator[LmStudio]:
    """The double as a process on a loopback port, with the pocket model under each of these keys.

    ``settings`` are those of ``settings.Settings``: ``api_token``, ``rest_v1``, ``jit_loading``,
    ``jit_ttl_seconds``, ``auto_evict``, ``context_tokens``, ``slots_count``, ``silent_overflow``.
    """
    with tempfile.TemporaryDirectory(prefix="at-") as home:
        folder = make_models_folder(Path(home) / ".lmstudio" / "models", models)
        runtime = Path(home) / "run"
        runtime.mkdir()
        told = Settings(
            models_folder=str(folder), runtime_folder=str(runtime), port=port or free_port(), **settings
        )
        url = f"http://127.0.0.1:{told.port}"
        headers = {} if told.api_token is None else {"Authorization": f"Bearer {told.api_token}"}
        arguments = ["-m", "tests.fakes.lmstudio.program", told.to_json()]
        async with (
            running(arguments, ready_url=f"{url}/_double") as process,
            httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30) as client,
        ):
            yield LmStudio(
                url=url, api_token=told.api_token, models_folder=folder, process=process, client=client
            )
