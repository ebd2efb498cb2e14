"""A daemon that tells its asyncio tasks: ``python tests/watched_daemon.py FILE -m autotuned ...``.

At SIGUSR1 it writes what its tasks run into FILE, a line for each that is not done, under another name first, so
that whoever reads FILE reads all of them. Else it is the daemon as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tests.engines.processes import until


def _teller(path: Path) -> Callable[[int, FrameType | None], None]:
    def tell(_number: int, _frame: FrameType | None) -> None:
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
        unready = path.with_suffix(".new")
        unready.write_text("\n".join(sorted(names)))
        unready.rename(path)

    return tell


async def tasks_of(process_id: int, path: Path) -> list[str]:
    """The tasks of such a daemon now, each by what it runs."""
    _forget(path)
    os.kill(process_id, signal.SIGUSR1)
    await until(path.exists, "the daemon tells its tasks")
    return _read(path)


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def _read(path: Path) -> list[str]:
    return path.read_text().splitlines()


def main() -> None:
    """Runs the module that the arguments name, as the interpreter would."""
    _, path, *interpreter = sys.argv
    module = interpreter[interpreter.index("-m") + 1]
    signal.signal(signal.SIGUSR1, _teller(Path(path)))
    sys.argv = [module, *interpreter[interpreter.index("-m") + 2 :]]
    with contextlib.suppress(KeyboardInterrupt):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
