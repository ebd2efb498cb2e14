"""Readings of this very machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import psutil
import pytest

from autotuned.hardware.probe import PsutilMachine


@pytest.fixture
def machine() -> PsutilMachine:
    return PsutilMachine()


async def test_a_reading_is_plausible(machine: PsutilMachine):
    reading = await machine.read()
    assert 0.0 <= reading.cpu_used_ratio <= 1.0
    assert reading.cpu_cores_count == os.cpu_count()
    assert 0 < reading.memory_available_bytes <= reading.memory_total_bytes
    assert 0 <= reading.swap_used_bytes <= reading.swap_total_bytes
    assert 1_000_000 < reading.daemon_resident_memory_bytes < reading.memory_total_bytes


async def test_the_event_loop_does_not_wait(machine: PsutilMachine, monkeypatch: pytest.MonkeyPatch):
    used: list[int] = []
    virtual_memory = psutil.virtual_memory

    def spy():
        used.append(threading.get_ident())
        return virtual_memory()

    monkeypatch.setattr(psutil, "virtual_memory", spy)
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


def test_memory_of_a_process(machine: PsutilMachine):
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert 1_000_000 < machine.resident_memory_bytes(child.pid) < 1_000_000_000
        child.kill()
        child.wait()
        assert machine.resident_memory_bytes(child.pid) == 0


@pytest.mark.parametrize("process_id", [0, -1, 2**22 + 1, 2**70])
def test_memory_of_no_process(machine: PsutilMachine, process_id: int):
    assert machine.resident_memory_bytes(process_id) == 0
