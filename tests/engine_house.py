"""One server for every kind of engine, and the environment in which a daemon finds them all.

End-to-end tests and benchmarks open it. The doubles of Ollama and LM Studio and two real servers of OpenAI's
dialect run the pocket model; llama.cpp and MLX are the daemon's own. Invariant: a server that was killed comes
back at its old port, and nothing is left of any of them afterwards.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.fakes.lmstudio.start import LmStudio, running_lmstudio
from tests.fakes.ollama.model_store import add_model, twin_of_pocket
from tests.fakes.ollama.running import RunningOllama, running_ollama
from tests.fakes.openai_servers import (
    MLX_LM_IS_INSTALLED,
    POCKET_FOLDER,
    POCKET_GGUF,
    OpenAiServer,
    running_llamacpp,
    running_mlx_lm,
)
from tests.fakes.serving import free_port

Result = TypeVar("Result")
Running = LmStudio | OpenAiServer | RunningOllama
Starting = Callable[[], AbstractAsyncContextManager[Running]]

MODELS = {
    "llamacpp": "pocket",
    "mlx": "pocket-mlx",
    "ollama": "pocket:latest",
    "lmstudio": "pocket",
    "lab": "pocket",
    "gpu": str(POCKET_FOLDER.resolve()),
}
"""The pocket model's id on each engine. "lab" is a llama.cpp server, "gpu" an ``mlx_lm.server``."""

MOST_MLX_COPIES = 2
"""Each takes seconds to start."""

ENGINES = tuple(name for name in MODELS if MLX_LM_IS_INSTALLED or name not in {"mlx", "gpu"})
"""The engines that can run here, in the daemon's order."""


def qualified(engine: str) -> str:
    """The pocket model's name with its engine before it, as clients send it."""
    return f"{engine}/{MODELS[engine]}"


class Place:
    """A server at a port that stays its own, however often it is killed."""

    def __init__(self, start: Starting) -> None:
        self._start = start
        self._stack = AsyncExitStack()
        self._server: Running | None = None

    @property
    def server(self) -> Running:
        """What runs here, or ran here last."""
        assert self._server is not None, "it was never started"
        return self._server

    async def start(self) -> None:
        """Starts it; one that ran before is taken away first."""
        await self.close()
        self._server = await self._stack.enter_async_context(self._start())

    async def close(self) -> None:
        """Ends it. One that is dead already is no error."""
        await self._stack.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Servers and models by the name of their engine, and the daemon's environment."""

    places: dict[str, Place]
    models: dict[str, tuple[str, ...]]
    environment: dict[str, str]

    @property
    def ollama(self) -> RunningOllama:
        """The double of Ollama."""
        server = self.places["ollama"].server
        assert isinstance(server, RunningOllama)
        return server

    @property
    def lmstudio(self) -> LmStudio:
        """The double of LM Studio."""
        server = self.places["lmstudio"].server
        assert isinstance(server, LmStudio)
        return server

    def server_process(self, engine: str) -> psutil.Process:
        """The process of this engine's server."""
        return psutil.Process(self.places[engine].server.process.pid)

    def children(self, engine: str, daemon_id: int) -> list[psutil.Process]:
        """What runs models for an engine: the daemon's workers, or what its server started."""
        if engine in self.places:
            with suppress(psutil.NoSuchProcess):
                return self.server_process(engine).children(recursive=True)
            return []
        program = f"engines/{engine}/worker.py"
        return [each for each in psutil.Process(daemon_id).children(recursive=True) if _runs(each, program)]

    def computing(self, engine: str, daemon_id: int) -> list[psutil.Process]:
        """The processes that compute answers of an engine: servers that start none do so themselves."""
        found = self.children(engine, daemon_id)
        return found if found or engine not in self.places else [self.server_process(engine)]


@asynccontextmanager
async def open_house(
    folder: Path, *, engines: Sequence[str] = ENGINES, copies_count: int = 1
) -> AsyncIterator[House]:
    """Starts the servers of these engines; ``folder`` gets the daemon's data and the double's models.

    Engines that load models have so many copies of the pocket model, each under a name of its own.
    """
    ports = {name: free_port() for name in engines}
    models = {name: _copies(name, copies_count) for name in engines}
    _lay_out(folder, models)
    starts: dict[str, Starting] = {
        "ollama": lambda: running_ollama(
            folder,
            models=folder / "ollama",
            port=ports["ollama"],
            # Its sockets go with the folder, also when it is killed.
            environment={"OLLAMA_MAX_LOADED_MODELS": str(copies_count), "TMPDIR": str(folder / "tmp")},
        ),
        "lmstudio": lambda: running_lmstudio(models=models["lmstudio"], port=ports["lmstudio"]),
        "lab": lambda: running_llamacpp(port=ports["lab"]),
        "gpu": lambda: running_mlx_lm(port=ports["gpu"]),
    }
    places = {name: Place(start) for name, start in starts.items() if name in engines}
    try:
        await asyncio.gather(*(place.start() for place in places.values()))
        yield House(places=places, models=models, environment=_environment(folder, ports))
    finally:
        await asyncio.gather(*(place.close() for place in places.values()))


def _runs(process: psutil.Process, program: str) -> bool:
    """Whether this process itself is a worker, and not the guard that was told how to start it."""
    try:
        command = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return any(part.endswith(program) for part in command) and not any(
        part.endswith("guard.py") for part in command
    )


def _copies(engine: str, count: int) -> tuple[str, ...]:
    first = MODELS[engine]
    if engine in {"lab", "gpu"}:
        return (first,)
    name, colon, tag = first.partition(":")
    if engine == "mlx":
        count = min(count, MOST_MLX_COPIES)
    return (first, *(f"{name}-{number}{colon}{tag}" for number in range(2, count + 1)))


def _lay_out(folder: Path, models: dict[str, tuple[str, ...]]) -> None:
    """Puts the copies where the daemon and the double of Ollama look; the one of LM Studio has its own."""
    own = folder / "data" / "models"
    own.mkdir(parents=True)
    (folder / "tmp").mkdir()
    for name in models.get("llamacpp", ())[1:]:
        shutil.copyfile(POCKET_GGUF, own / f"{name}.gguf")
    for name in models.get("mlx", ()):
        shutil.copytree(POCKET_FOLDER, own / name)
    for number, name in enumerate(models.get("ollama", ())):
        # A blob of its own for each: the original runs names that share one in the same process.
        gguf = twin_of_pocket(folder / "twin.gguf", more_bytes=32 * number) if number else POCKET_GGUF
        add_model(folder / "ollama", name, gguf=gguf)
        (folder / "twin.gguf").unlink(missing_ok=True)


def _environment(folder: Path, ports: dict[str, int]) -> dict[str, str]:
    """What a daemon is told: the servers, and of the user's own machine nothing."""
    upstreams = [f"{name}=http://127.0.0.1:{ports[name]}/v1" for name in ("lab", "gpu") if name in ports]
    found = {"AUTOTUNE_DATA_DIR": str(folder / "data"), "AUTOTUNE_OPENAI_UPSTREAMS": ";".join(upstreams)}
    if "mlx" not in ports:
        found["AUTOTUNE_MLX_MODE"] = "off"
    if "ollama" in ports:
        found |= {
            "AUTOTUNE_OLLAMA_MODE": "attach",
            "AUTOTUNE_OLLAMA_URL": f"http://127.0.0.1:{ports['ollama']}",
        }
    if "lmstudio" in ports:
        found |= {
            "AUTOTUNE_LMSTUDIO_MODE": "auto",
            "AUTOTUNE_LMSTUDIO_URL": f"http://127.0.0.1:{ports['lmstudio']}",
        }
    return found


class Background:
    """An event loop in a thread, for programs and tests that block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="background loop")
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, Result] | Awaitable[Result]) -> Result:
        """Waits for what runs over there."""

        async def waited() -> Result:
            return await work

        return asyncio.run_coroutine_threadsafe(waited(), self._loop).result()

    def close(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def background() -> Iterator[Background]:
    """An event loop beside this thread, until the block ends."""
    made = Background()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def opened_house(folder: Path, **choices: Any) -> Iterator[tuple[House, Background]]:
    """``open_house`` for tests that block; what its servers are asked is done by the loop that comes with it."""
    with background() as beside:
        opening = open_house(folder, **choices)
        house = beside.do(opening.__aenter__())
        try:
            yield house, beside
        finally:
            beside.do(opening.__aexit__(None, None, None))
