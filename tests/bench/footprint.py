"""What the resident parts cost when nobody asks them anything, and how fast they start."""

from __future__ import annotations

import sys
import time

import psutil

from tests.bench import processes
from tests.bench.report import Row, median

STARTS = 10
COMMANDS = 20
SETTLE_SECONDS = 2.0
IDLE_SECONDS = 20.0


def measure() -> list[Row]:
    _start_once()
    starts = []
    for _ in range(STARTS):
        with processes.home() as folder, processes.daemon(folder) as (_, seconds):
            starts.append(seconds)
    with (
        processes.home() as folder,
        processes.daemon(folder) as (daemon, _),
        processes.shim(folder) as (shim, _),
    ):
        ps = [
            processes.run([sys.executable, "-m", "autotunectl", "ps"], processes.environment(folder))
            for _ in range(COMMANDS)
        ]
        watched = {
            name: psutil.Process(process.pid) for name, process in (("daemon", daemon), ("shim", shim))
        }
        time.sleep(SETTLE_SECONDS)
        before = {name: cpu_seconds(process) for name, process in watched.items()}
        time.sleep(IDLE_SECONDS)
        used = {
            name: 100 * (cpu_seconds(process) - before[name]) / IDLE_SECONDS
            for name, process in watched.items()
        }
        memory = {name: process.memory_info().rss / 1e6 for name, process in watched.items()}
    return [
        Row(f"daemon ready after exec (median of {STARTS})", 1000 * median(starts), "ms", 700),
        Row("daemon RSS, idle", memory["daemon"], "MB", 60),
        Row("shim RSS, idle", memory["shim"], "MB", 50),
        Row(f"daemon CPU, idle over {IDLE_SECONDS:g} s", used["daemon"], "% of a core", 0.3),
        Row(f"shim CPU, idle over {IDLE_SECONDS:g} s", used["shim"], "% of a core"),
        Row(f"autotunectl ps, cold process (median of {COMMANDS})", 1000 * median(ps), "ms", 200),
    ]


def _start_once() -> None:
    """The first start after a change compiles modules, which costs memory and time as no other start does."""
    with processes.home() as folder, processes.daemon(folder), processes.shim(folder):
        processes.run([sys.executable, "-m", "autotunectl", "ps"], processes.environment(folder))


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
