"""The worker: mlx_lm with one model, on a Unix socket.

    python -I -B worker.py '{"model": ..., "socket": ..., ...}'

``process`` starts it under the guard; nothing imports it. Its argument is the JSON of
``protocol.WorkerSettings``; what it writes is read by ``log``.
Invariant: it ends when the guard lets go of its standard input, whatever it is doing.
"""

import asyncio
import os
import sys
import threading
from pathlib import Path

if __name__ == "__main__":  # isolated, a program has no folder of its own on its path
    sys.path.append(str(Path(__file__).parents[3]))

import msgspec

from autotuned.engines.mlx.inside.engine_thread import EngineThread
from autotuned.engines.mlx.inside.server import Server
from autotuned.engines.mlx.protocol import LoadReport, WorkerSettings


def main() -> None:
    """Loads and serves until the guard lets go."""
    settings = msgspec.json.decode(sys.argv[1], type=WorkerSettings)
    threading.Thread(target=_end_with_guard, daemon=True).start()
    asyncio.run(_serve(settings))


async def _serve(settings: WorkerSettings) -> None:
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[LoadReport] = loop.create_future()

    def ready(report: LoadReport) -> None:
        loop.call_soon_threadsafe(loaded.set_result, report)

    engine = EngineThread(
        settings,
        tell=lambda phase: _write(f"phase {phase}"),
        ready=ready,
        failed=_fail,
    )
    engine.start()
    report = await loaded
    server = await asyncio.start_unix_server(Server(engine).handle, settings.socket)
    _write(f"serving {msgspec.json.encode(report).decode()}")
    await server.serve_forever()


def _fail(reason: str) -> None:
    """A load that failed is the end of the worker."""
    _write("error: " + " ".join(reason.split()))
    os._exit(1)


def _end_with_guard() -> None:
    while os.read(0, 512):
        pass
    os._exit(0)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
