"""Real servers of OpenAI's dialect with the pocket model: llama.cpp's, and MLX-LM's.

They are what a user points the daemon at; nothing in them is scripted.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.serving import ROOT, free_port, running

POCKET_GGUF = ROOT / "autotuned" / "data" / "pocket.gguf"
POCKET_FOLDER = ROOT / "tests" / "data" / "pocket-hf"
LLAMACPP_PROGRAM = ROOT / "tests" / "fakes" / "llamacpp_server.py"
# On Linux it is an extra of the package.
MLX_LM_IS_INSTALLED = importlib.util.find_spec("mlx_lm") is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiServer:
    """A server that is up."""

    url: str  # without a path and without a slash at the end
    api_key: str | None
    model: str  # the id that GET /v1/models has
    process: asyncio.subprocess.Process

    @property
    def base_url(self) -> str:
        """What an OpenAI client calls its base URL."""
        return f"{self.url}/v1"

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that let a request in."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}


@asynccontextmanager
async def running_llamacpp(
    *, api_key: str | None = None, context_tokens: int = 2048, slots_count: int = 1, port: int | None = None
) -> AsyncIterator[OpenAiServer]:
    """llama.cpp's server; with a key it answers 401 to everything but ``/health`` without it."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "model": str(POCKET_GGUF),
        "alias": "pocket",
        "address": "127.0.0.1",
        "port": port,
        "api_keys": [] if api_key is None else [api_key],
        "context_tokens": context_tokens,
        "slots_count": slots_count,
    }
    arguments: list[str | Path] = ["-I", LLAMACPP_PROGRAM, json.dumps(settings)]
    async with running(arguments, ready_url=f"{url}/health") as process:
        yield OpenAiServer(url=url, api_key=api_key, model="pocket", process=process)


@asynccontextmanager
async def running_mlx_lm(
    *, folder: Path = POCKET_FOLDER, port: int | None = None
) -> AsyncIterator[OpenAiServer]:
    """``mlx_lm.server``, which knows no key, no limit of the context and no network here."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    arguments: list[str | Path] = [
        "-m",
        "mlx_lm",
        "server",
        "--model",
        folder,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with tempfile.TemporaryDirectory(prefix="at-") as home:
        # Without this folder GET /v1/models answers 200 with nothing in it.
        (Path(home) / "hub").mkdir()
        environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": home}
        async with running(arguments, ready_url=f"{url}/health", environment=environment) as process:
            yield OpenAiServer(url=url, api_key=None, model=_served_id(folder), process=process)


def _served_id(folder: Path) -> str:
    """The id that ``mlx_lm.server`` makes of its folder."""
    return str(folder.resolve())
