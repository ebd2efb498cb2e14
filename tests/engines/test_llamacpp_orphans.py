"""No worker outlives the daemon, whoever is killed, and whenever."""

import asyncio
import os
import signal
import sys

import psutil
import pytest

from autotuned.core.model import LoadPhase
from tests.engines.processes import is_alive, until
from tests.engines.shapes import SHAPE, shape
from tests.suites.engine_case import answer, ask, text_of

# Loads the pocket model, tells the phase and the processes, and then waits to be killed.
DAEMON = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path

import psutil

from autotuned.core.settings import LlamacppSettings, PathSettings
from autotuned.engines.llamacpp.engine import LlamacppEngine
from tests.engines.conftest import SystemClock
from tests.engines.shapes import shape

async def main(root, context_tokens, phase):
    engine = LlamacppEngine(
        paths=PathSettings(data=root, runtime=root / "run", state=root),
        settings=LlamacppSettings(), files=(), clock=SystemClock(),
    )
    def tell(progress):
        if progress.phase.name == phase:
            children = psutil.Process().children(recursive=True)
            print(*[child.pid for child in children], flush=True)
    entry = next(entry for entry in await engine.models() if entry.id == "pocket")
    await engine.load(entry, shape(context_tokens=context_tokens), tell)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
"""


@pytest.fixture
async def start_daemon(paths):
    """``start_daemon(context_tokens, phase)``: a process, and those below it once the phase is reached."""
    started = []

    async def start(context_tokens, phase):
        daemon = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            DAEMON,
            paths.runtime.parent,
            str(context_tokens),
            phase.name,
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(daemon)
        line = await asyncio.wait_for(daemon.stdout.readline(), 30)
        return daemon, [int(number) for number in line.split()]

    yield start
    for daemon in started:
        if daemon.returncode is None:
            daemon.kill()
        await daemon.communicate()


async def test_kill_9_of_the_daemon_leaves_nothing(start_daemon, paths):
    daemon, below = await start_daemon(2048, LoadPhase.READY)
    assert len(below) == 2
    assert all(is_alive(process) for process in below)
    assert len(list(paths.runtime.iterdir())) == 1
    daemon.kill()
    await until(lambda: not any(is_alive(process) for process in below), "guard and worker are gone")
    await until(lambda: list(paths.runtime.iterdir()) == [], "the socket is removed")


@pytest.mark.parametrize("phase", [LoadPhase.STARTING, LoadPhase.READING_WEIGHTS, LoadPhase.ALLOCATING])
async def test_kill_9_of_the_daemon_in_mid_load_leaves_nothing(start_daemon, paths, phase):
    # A context that takes a while to be filled with zeros; the worker hears no signal meanwhile.
    daemon, below = await start_daemon(512 * 1024, phase)
    daemon.kill()
    await daemon.wait()
    await until(lambda: not any(is_alive(process) for process in below), "guard and worker are gone")
    await until(lambda: not workers_of(paths), "no worker was started afterwards")
    await until(lambda: list(paths.runtime.iterdir()) == [], "the socket is removed")


def workers_of(paths):
    """Processes whose command line names the folder of this test, except the test's own children."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(paths.runtime) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_daemon_that_ends_by_a_signal_leaves_nothing(start_daemon, paths, number):
    daemon, below = await start_daemon(2048, LoadPhase.READY)
    daemon.send_signal(number)
    await until(lambda: not any(is_alive(process) for process in below), "guard and worker are gone")
    await until(lambda: list(paths.runtime.iterdir()) == [], "the socket is removed")


async def test_kill_9_of_the_guard_ends_the_worker(engine, pocket, paths):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    guard = psutil.Process(model.process_id).ppid()
    os.kill(guard, signal.SIGKILL)
    assert "killed by signal 9" in await asyncio.wait_for(model.wait_gone(), 10)
    await until(lambda: not is_alive(model.process_id), "the worker is gone")
    assert list(paths.runtime.iterdir()) == []


async def test_a_stopped_guard_does_not_keep_an_unload_waiting(engine, pocket, monkeypatch):
    monkeypatch.setattr("autotuned.engines.process.TERMINATE_SECONDS", 0.1)
    monkeypatch.setattr("autotuned.engines.process.KILL_SECONDS", 0.1)
    model = await engine.load(pocket, SHAPE, lambda _: None)
    os.kill(psutil.Process(model.process_id).ppid(), signal.SIGSTOP)
    await asyncio.wait_for(model.unload(), 10)
    await until(lambda: not is_alive(model.process_id), "the worker is gone")
    assert await model.wait_gone() == "it was unloaded"


async def test_sigterm_to_the_guard_ends_the_worker(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    os.kill(psutil.Process(model.process_id).ppid(), signal.SIGTERM)
    assert "killed by signal 15 (SIGTERM)" in await asyncio.wait_for(model.wait_gone(), 10)


async def test_what_a_terminal_sends_does_not_reach_the_worker(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    guard = psutil.Process(model.process_id).ppid()
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(guard, number)
    assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"


async def test_a_cancelled_long_load_leaves_nothing(engine, pocket, paths):
    allocating = asyncio.Event()

    def notice(progress):
        if progress.phase is LoadPhase.ALLOCATING:
            allocating.set()

    load = asyncio.create_task(engine.load(pocket, shape(context_tokens=512 * 1024), notice))
    await allocating.wait()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert workers_of(paths) == []
    assert list(paths.runtime.iterdir()) == []
