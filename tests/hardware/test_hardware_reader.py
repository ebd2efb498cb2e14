"""The reader of the machine that runs the tests, and of recorded ones."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import psutil
import pytest

from autotuned.core.hardware import BandwidthSource, GpuVendor, PowerSource
from autotuned.hardware.reader import HardwareReader
from tests import recorded_pcs as pcs
from tests.machines import MACHINES

GIB = 1 << 30


async def test_this_machine(tmp_path):
    reader = HardwareReader(tmp_path / "bandwidth.json")
    hardware = await reader.read()
    assert hardware.system
    assert 0 < hardware.cpu.physical_cores_count <= hardware.cpu.logical_cores_count
    assert hardware.cpu.logical_cores_count >= (psutil.cpu_count() or 1)
    assert hardware.cpu.model
    assert hardware.memory_bytes == psutil.virtual_memory().total
    assert hardware.memory_bandwidth.source is not BandwidthSource.UNKNOWN
    assert hardware.memory_bandwidth.bytes_per_second > 10**8


async def test_a_second_daemon_finds_what_the_first_measured(tmp_path):
    file = tmp_path / "bandwidth.json"
    first = await HardwareReader(file).read()
    if first.memory_bandwidth.source is BandwidthSource.SPECIFIED:
        pytest.skip("nothing is measured where the maker says it")
    content = json.loads(file.read_text())
    assert content["bytes_per_second"] == first.memory_bandwidth.bytes_per_second
    file.write_text(json.dumps({**content, "bytes_per_second": 12_345, "was_busy": False}))
    second = await HardwareReader(file).read()
    assert second.memory_bandwidth.bytes_per_second == 12_345


@pytest.mark.skipif(sys.platform == "darwin", reason="reads files of Linux")
async def test_a_recorded_machine(make_machine, tmp_path):
    root = make_machine(
        {
            **pcs.system("LENOVO", "21J9", "ThinkBook 16 G5+", total_kib=63_410_244),
            "proc/meminfo": "MemTotal: 63410244 kB\nMemAvailable: 50000000 kB\n",
            **pcs.amd("AMD Ryzen 7 7735HS", pcs.ZEN_FLAGS, pcs.neighbours(8)),
            **pcs.amd_card("1002:1681", "c8", vram=2 * GIB, used=GIB, vram_maker="unknown"),
            **pcs.BATTERY,
        }
    )
    reader = HardwareReader(tmp_path / "cache" / "bandwidth.json", root)
    hardware = await reader.read()
    assert (hardware.system, hardware.model) == ("Ubuntu 24.04.3 LTS", "Lenovo ThinkBook 16 G5+")
    assert hardware.cpu.physical_cores_count == 8
    assert hardware.memory_bytes == 63_410_244 << 10
    assert hardware.power.source is PowerSource.BATTERY
    [gpu] = hardware.gpus
    assert (gpu.vendor, gpu.unified, gpu.free_bytes) == (GpuVendor.AMD, True, GIB)
    assert gpu.bandwidth == hardware.memory_bandwidth  # its memory is the RAM, and nobody says how fast
    # What changes is read each time, the rest once.
    make_machine({**pcs.PLUGGED_IN, "proc/cpuinfo": "", "etc/os-release": ""})
    again = await reader.read()
    assert again.power.source is PowerSource.MAINS
    assert (again.cpu, again.system, again.memory_bandwidth) == (
        hardware.cpu, hardware.system, hardware.memory_bandwidth,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "darwin", reason="reads files of Linux")
async def test_a_machine_that_tells_nothing(make_machine, tmp_path):
    reader = HardwareReader(tmp_path / "bandwidth.json", make_machine({}))
    hardware = await reader.read()
    assert (hardware.system, hardware.model, hardware.memory_bytes) == ("Linux", "", 0)
    assert (hardware.gpus, hardware.cpu.model) == ((), "")
    assert await reader.applications() == ()


async def test_readings_at_the_same_time_measure_once(tmp_path, monkeypatch):
    measured = []

    def measure(size_bytes: int, threads_count: int) -> int:
        measured.append(threads_count)
        return 10**10

    monkeypatch.setattr("autotuned.hardware.read_rate.measure_bytes_per_second", measure)
    reader = HardwareReader(tmp_path / "bandwidth.json")
    readings = await asyncio.gather(*(reader.read() for _ in range(5)))
    assert len({reading.memory_bandwidth for reading in readings}) == 1
    assert len(measured) <= 1


async def test_the_event_loop_goes_on_while_memory_is_measured(tmp_path):
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(turn())
    await HardwareReader(tmp_path / "bandwidth.json").read()
    ticking.cancel()
    assert turns > 3


async def test_applications_of_this_machine(tmp_path):
    found = await HardwareReader(tmp_path / "bandwidth.json").applications()
    assert list(found) == sorted(found, key=lambda one: -one.memory_bytes)
    assert all(one.memory_bytes >= 50 << 20 and one.processes_count > 0 and one.name for one in found)


def test_the_wing_loads_nothing_heavy():
    code = (
        "import sys, autotuned.hardware.reader;"
        "print([name for name in ('pynvml', 'numpy', 'httpx', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_recorded_machines():
    by_key = {machine.key: machine for machine in MACHINES}
    assert len(by_key) == len(MACHINES) >= 15
    assert sum(machine.in_readme for machine in MACHINES) == 10
    for machine in MACHINES:
        hardware, memory = machine.hardware, machine.memory
        assert hardware.memory_bandwidth.bytes_per_second > 0
        assert hardware.cpu.instruction_sets
        assert hardware.memory_bytes == memory.total_bytes > memory.available_bytes > 0
        for gpu in hardware.gpus:
            assert gpu.bandwidth.bytes_per_second > 0
            assert gpu.unified or gpu.memory_bytes > 7 * GIB
    macs = [machine for machine in MACHINES if machine.key.startswith("mac-")]
    assert [round(machine.hardware.memory_bytes / GIB) for machine in macs] == [8, 16, 24, 32, 64, 128]
    assert all(machine.memory.wired_limit_bytes for machine in macs)
