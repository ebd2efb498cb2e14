"""A daemon beside a server of each engine's kind, for sections that compare the engines."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import autotune

from tests.bench import processes
from tests.engine_house import ENGINES, House, open_house

TITLES = {
    "llamacpp": "llama.cpp",
    "mlx": "MLX on the CPU",
    "ollama": "Ollama (double)",
    "lmstudio": "LM Studio (double)",
    "lab": "OpenAI-compatible, llama.cpp's server",
    "gpu": "OpenAI-compatible, mlx_lm.server on the CPU",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """What is open while a section measures."""

    folder: Path
    house: House
    daemon: subprocess.Popen[bytes]
    client: autotune.AsyncClient

    @property
    def address(self) -> str:
        """The daemon's."""
        return address_in(self.folder)


def address_in(folder: Path) -> str:
    """The address of a daemon whose folders are in this one."""
    return f"unix:{folder / 'run' / 'autotuned.sock'}"


@asynccontextmanager
async def opened(
    *,
    engines: Sequence[str] = ENGINES,
    copies_count: int = 1,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Open]:
    """Servers, a daemon that finds them and a client of it; nothing is left of them afterwards."""
    with processes.home() as folder:
        async with open_house(folder, engines=engines, copies_count=copies_count) as house:
            running = processes.daemon(folder, variables={**house.environment, **variables})
            daemon, _ = await asyncio.to_thread(running.__enter__)
            try:
                async with autotune.AsyncClient(address_in(folder), client_name="bench") as client:
                    yield Open(folder=folder, house=house, daemon=daemon, client=client)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    await asyncio.to_thread(running.__exit__, None, None, None)
