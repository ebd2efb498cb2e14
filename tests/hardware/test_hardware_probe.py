"""Readings of this very machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import psutil
import pytest

from autotuned.core.memory import ProcessMemory
from autotuned.hardware.probe import PsutilMachine

NOTHING = ProcessMemory(resident_bytes=0, anonymous_bytes=0)


@pytest.fixture
def machine() -> PsutilMachine:
    return PsutilMachine()


async def test_a_reading_is_plausible(machine: PsutilMachine):
    reading = await machine.read()
    assert 0.0 <= reading.cpu_used_ratio <= 1.0
    assert reading.cpu_cores_count == os.cpu_count()
    assert 0 < reading.memory.available_bytes <= reading.memory.total_bytes
    assert 0 <= reading.memory.swap_free_bytes <= reading.memory.swap_total_bytes
    assert 1_000_000 < reading.daemon_resident_memory_bytes < reading.memory.total_bytes


async def test_a_reading_of_memory_alone_is_that_of_the_machine(machine: PsutilMachine):
    alone, whole = await machine.read_memory(), (await machine.read()).memory
    assert alone.total_bytes == whole.total_bytes <= psutil.virtual_memory().total
    assert alone.limit_bytes == whole.limit_bytes
    assert alone.swap_total_bytes == whole.swap_total_bytes
    assert 0 < alone.available_bytes <= alone.total_bytes


async def test_the_event_loop_does_not_wait(machine: PsutilMachine, monkeypatch: pytest.MonkeyPatch):
    used: list[int] = []
    cpu_count = psutil.cpu_count

    def spy():
        used.append(threading.get_ident())
        return cpu_count()

    monkeypatch.setattr(psutil, "cpu_count", spy)
    await machine.read()
    assert used
    assert threading.get_ident() not in used


def times(busy: float, idle: float) -> tuple[float, float]:
    return busy, busy + idle


async def test_cpu_use_is_that_since_the_last_reading(monkeypatch: pytest.MonkeyPatch):
    readings = iter([times(100, 900), times(101, 903), times(104, 904), times(104.01, 904.01)])
    monkeypatch.setattr("autotuned.hardware.probe._cpu_seconds", lambda: next(readings))
    machine = PsutilMachine()
    assert (await machine.read()).cpu_used_ratio == 0.25
    assert (await machine.read()).cpu_used_ratio == 0.75
    assert (await machine.read()).cpu_used_ratio == 0.75  # too short an interval to tell


async def test_work_shows_in_the_cpu_use(machine: PsutilMachine):
    def work() -> None:
        until = sum(os.times()[:2]) + 0.3
        while sum(os.times()[:2]) < until:
            pass

    await asyncio.to_thread(work)
    assert (await machine.read()).cpu_used_ratio > 0.0


async def test_many_readings_at_once(machine: PsutilMachine):
    readings = await asyncio.gather(*(machine.read() for _ in range(20)))
    assert all(0.0 <= reading.cpu_used_ratio <= 1.0 for reading in readings)


def test_memory_of_a_process(machine: PsutilMachine, tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(os.urandom(16 << 20))
    program = (
        "import mmap, sys; file = open(sys.argv[1], 'rb');"
        "mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); sum(mapped[::4096]);"
        "held = b'x' * (32 << 20); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, weights], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        memory = machine.process_memory(child.pid)
        assert memory.resident_bytes == pytest.approx(
            psutil.Process(child.pid).memory_info().rss, abs=2 << 20
        )
        assert 32 << 20 <= memory.anonymous_bytes <= memory.resident_bytes - (16 << 20)
        child.kill()
        child.wait()
        assert machine.process_memory(child.pid) == NOTHING


@pytest.mark.parametrize("process_id", [0, -1, 2**22 + 1, 2**70])
def test_memory_of_no_process(machine: PsutilMachine, process_id: int):
    assert machine.process_memory(process_id) == NOTHING
