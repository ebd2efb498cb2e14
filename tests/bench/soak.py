"""Random clients and random accidents for a while; then everything must be as it was before.

python -m tests.bench.soak --seconds 60

While gRPC and HTTP clients ask, are cut off, time out and name what does not exist, workers are
killed, frozen and unloaded. Afterwards nothing may be active or queued, the daemon and the shim hold
the descriptors that they held before, no process or socket is left, and every error that
a client saw had a reason. The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import autotune
import httpx
import psutil
from autotune.errors import AutotuneError

import autotuned
from tests.bench import processes
from tests.bench.report import Row, machine, show
from tests.bench.soak_clients import COPIES, DAMAGED_MODEL, MODELS, GrpcClient, HttpClient, Tally

GRPC_CLIENTS = 4
HTTP_CLIENTS = 3
WARM_UP_SECONDS = 5.0
SETTLE_SECONDS = 30.0
CLOSING_SECONDS = 1.0
POOL_THREADS = 6
"""The threads of a pool are made when they are first needed together, and stay."""

UNLOAD_CHANCE = 0.2
DAEMON_ARGUMENTS = ("--set", "llamacpp.silence_timeout_seconds=1", "--set", "queue.max_waiting=3")
"""A frozen worker is found out within a second, and the queue overflows now and then."""


@dataclass(frozen=True)
class Holdings:
    """What a process holds while it is idle."""

    descriptors: int
    threads: int
    resident_megabytes: float

    @classmethod
    def of(cls, process: psutil.Process) -> Holdings:
        with process.oneshot():
            return cls(process.num_fds(), process.num_threads(), process.memory_info().rss / 1e6)


def measure(seconds: float) -> list[Row]:
    with processes.home() as folder:
        add_models(folder / "data" / "models")
        with (
            processes.daemon(folder, *DAEMON_ARGUMENTS) as (daemon, _),
            processes.shim(folder) as (shim, port),
        ):
            watched = psutil.Process(daemon.pid)
            rows = asyncio.run(Soak(folder, watched, psutil.Process(shim.pid), port).run(seconds))
            family = watched.children(recursive=True)
        rows.append(zero("processes left by the daemon", len(psutil.wait_procs(family, timeout=5)[1])))
        rows.append(zero("sockets left by the daemon", len(list((folder / "run").glob("*.sock")))))
    return rows


def add_models(models: Path) -> None:
    models.mkdir(parents=True)
    pocket = Path(autotuned.__file__).parent / "data" / "pocket.gguf"
    for name in COPIES:
        shutil.copy(pocket, models / f"{name}.gguf")
    (models / f"{DAMAGED_MODEL}.gguf").write_bytes(pocket.read_bytes()[:1_000_000])


class Soak:
    """One run against one daemon and one shim."""

    def __init__(self, folder: Path, daemon: psutil.Process, shim: psutil.Process, port: int) -> None:
        self._runtime = folder / "run"
        self._daemon = daemon
        self._shim = shim
        self._url = f"http://127.0.0.1:{port}"
        self._accidents: Counter[str] = Counter()

    async def run(self, seconds: float) -> list[Row]:
        async with autotune.AsyncClient(f"unix:{self._runtime / 'autotuned.sock'}") as control:
            await self._load(WARM_UP_SECONDS, Tally(), control)
            await self._settle(control)
            before = Holdings.of(self._daemon), Holdings.of(self._shim)
            self._accidents.clear()
            tally = Tally()
            await self._load(seconds, tally, control)
            settle_seconds = await self._settle(control)
            after = Holdings.of(self._daemon), Holdings.of(self._shim)
            snapshot = await control.snapshot()
        for what, count in tally.untyped.most_common():
            print(f"untyped, {count} times: {what}")
        return [
            *(Row(name, count, "requests") for name, count in tally.outcomes.most_common()),
            *(Row(name, count, "times") for name, count in self._accidents.most_common()),
            zero("errors without a reason", tally.outcomes["untyped"]),
            zero("requests active at the end", snapshot.active_requests_count),
            zero("requests queued at the end", snapshot.queued_requests_count),
            Row("time to settle", settle_seconds, "s", SETTLE_SECONDS),
            zero("worker processes after unloading", len(self._daemon.children(recursive=True))),
            zero("worker sockets after unloading", len(list(self._runtime.glob("w-*")))),
            *growth("daemon", before[0], after[0]),
            *growth("shim", before[1], after[1]),
        ]

    async def _load(self, seconds: float, tally: Tally, control: autotune.AsyncClient) -> None:
        deadline = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(GRPC_CLIENTS):
                group.create_task(self._grpc_program(deadline, tally))
            for _ in range(HTTP_CLIENTS):
                group.create_task(self._http_program(deadline, tally))
            group.create_task(self._have_accidents(deadline, control))

    async def _grpc_program(self, deadline: float, tally: Tally) -> None:
        async with autotune.AsyncClient(f"unix:{self._runtime / 'autotuned.sock'}") as client:
            program = GrpcClient(client)
            while time.monotonic() < deadline:
                await tally.count(random.choice(program.actions))

    async def _http_program(self, deadline: float, tally: Tally) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=None) as http:  # noqa: S113 - Tally has one
            program = HttpClient(http)
            while time.monotonic() < deadline:
                await tally.count(random.choice(program.actions))

    async def _have_accidents(self, deadline: float, control: autotune.AsyncClient) -> None:
        accidents = (self._kill_worker, self._kill_guard, self._freeze_worker, self._freeze_worker_for_good)
        while time.monotonic() < deadline:
            await asyncio.sleep(random.uniform(0.1, 1.5))
            guards = self._daemon.children()
            with contextlib.suppress(psutil.NoSuchProcess):
                if not guards or random.random() < UNLOAD_CHANCE:
                    await self._unload(control)
                else:
                    await random.choice(accidents)(random.choice(guards))

    async def _kill_worker(self, guard: psutil.Process) -> None:
        for worker in guard.children():
            worker.kill()
            self._accidents["workers killed"] += 1

    async def _kill_guard(self, guard: psutil.Process) -> None:
        guard.kill()
        self._accidents["guards of workers killed"] += 1

    async def _freeze_worker(self, guard: psutil.Process) -> None:
        """For less or more than the daemon's patience."""
        for worker in guard.children():
            worker.suspend()
            self._accidents["workers frozen for a while"] += 1
            await asyncio.sleep(random.uniform(0.1, 2.0))
            worker.resume()

    async def _freeze_worker_for_good(self, guard: psutil.Process) -> None:
        for worker in guard.children():
            worker.suspend()
            self._accidents["workers frozen for good"] += 1

    async def _unload(self, control: autotune.AsyncClient) -> None:
        with contextlib.suppress(AutotuneError):
            await control.unload_model(random.choice(MODELS), timeout_seconds=1.0)
            self._accidents["models unloaded"] += 1

    async def _settle(self, control: autotune.AsyncClient) -> float:
        """Seconds until each model answers again and, unloaded, leaves nothing behind."""
        started = time.monotonic()
        for model in MODELS:
            while True:
                try:
                    await control.chat("What is the capital of France?", model, temperature=0.0)
                    break
                except AutotuneError:  # a worker that was frozen for good is found out by this request
                    if time.monotonic() > started + SETTLE_SECONDS:
                        raise
            await control.unload_model(model)
        workers = self._daemon.children(recursive=True)
        await asyncio.to_thread(psutil.wait_procs, workers, SETTLE_SECONDS)
        seconds = time.monotonic() - started
        await asyncio.sleep(CLOSING_SECONDS)
        return seconds


def zero(name: str, count: float) -> Row:
    return Row(name, count, "", 1)


def growth(name: str, before: Holdings, after: Holdings) -> list[Row]:
    return [
        zero(f"{name}: descriptors more", after.descriptors - before.descriptors),
        Row(f"{name}: threads more", after.threads - before.threads, "", POOL_THREADS),
        Row(f"{name}: RSS before", before.resident_megabytes, "MB"),
        Row(f"{name}: RSS more", after.resident_megabytes - before.resident_megabytes, "MB", 10),
    ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak")
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args(arguments).seconds
    print(", ".join(f"{key}: {value}" for key, value in machine().items()))
    rows = measure(seconds)
    show(f"Soak: {GRPC_CLIENTS} gRPC and {HTTP_CLIENTS} HTTP clients and accidents for {seconds:g} s", rows)
    return int(any(row.verdict == "MISSED" for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
