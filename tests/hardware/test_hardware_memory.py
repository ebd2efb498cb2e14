"""Readings of memory from what Linux and macOS wrote, and from nonsense."""

from __future__ import annotations

import os

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.memory import ProcessMemory
from autotuned.hardware import darwin
from autotuned.hardware.meminfo import MachineMemory, parse_meminfo, parse_status
from autotuned.hardware.memory import MemoryProbe
from autotuned.hardware.pressure_stall import parse_stalled_ratio
from tests.hardware import recorded as texts

KIB = 1 << 10
GIB = 1 << 30
GROUP = "sys/fs/cgroup/memory/jobs/one/memory"


def test_meminfo():
    assert parse_meminfo(texts.MEMINFO) == MachineMemory(
        total_bytes=24684092 * KIB,
        available_bytes=(24142216 - 100000) * KIB,
        swap_total_bytes=2097148 * KIB,
        swap_free_bytes=1835004 * KIB,
    )


def test_a_machine_without_swap():
    text = "MemTotal: 1000 kB\nMemAvailable: 400 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
    assert parse_meminfo(text) == MachineMemory(
        total_bytes=1000 * KIB, available_bytes=400 * KIB, swap_total_bytes=0, swap_free_bytes=0
    )


@pytest.mark.parametrize(
    "text", ["", "MemTotal: 5 kB\n", "MemTotal: 5 MB\nMemAvailable: 4 kB\n", "MemTotal:\n"]
)
def test_a_meminfo_that_hides_what_counts(text):
    assert parse_meminfo(text) is None


def test_status():
    assert parse_status(texts.STATUS) == ProcessMemory(
        resident_bytes=201000 * KIB, anonymous_bytes=121000 * KIB
    )
    assert parse_status(texts.ZOMBIE_STATUS) is None


def test_pressure():
    assert parse_stalled_ratio(texts.PRESSURE) == pytest.approx(0.1234)
    assert parse_stalled_ratio("some avg10=250.00 avg60=0.00") == 1.0


@pytest.mark.parametrize(
    "text", ["", "full avg10=4.00", "some avg10=nan", "some avg10=-1.00", "some avg10=" + "9" * 5000]
)
def test_a_pressure_that_says_nothing(text):
    assert parse_stalled_ratio(text) is None


@given(st.text(max_size=200))
def test_parsers_take_any_text(text):
    machine = parse_meminfo(text)
    assert machine is None or 0 <= machine.available_bytes <= machine.total_bytes
    process = parse_status(text)
    assert process is None or 0 <= process.anonymous_bytes <= process.resident_bytes
    ratio = parse_stalled_ratio(text)
    assert ratio is None or 0.0 <= ratio <= 1.0


def test_a_machine_without_groups(make_machine):
    root = make_machine({"proc/meminfo": texts.MEMINFO, "proc/pressure/memory": texts.PRESSURE})
    reading = MemoryProbe(root).read()
    assert reading.total_bytes == 24684092 * KIB
    assert reading.limit_bytes is None
    assert reading.stalled_ratio == pytest.approx(0.1234)
    assert reading.os_pressure_level is None
    assert reading.wired_limit_bytes is None


def test_a_group_is_not_its_machine(make_machine):
    root = make_machine(
        {
            "proc/meminfo": texts.MEMINFO,
            "proc/pressure/memory": texts.PRESSURE,
            "proc/self/cgroup": texts.V1_CGROUP,
            "proc/self/mountinfo": texts.V1_MOUNTINFO,
            f"{GROUP}.limit_in_bytes": str(2 * GIB),
            f"{GROUP}.usage_in_bytes": str(GIB),
            f"{GROUP}.memsw.limit_in_bytes": str(2 * GIB),
        }
    )
    reading = MemoryProbe(root).read()
    assert (reading.total_bytes, reading.available_bytes, reading.limit_bytes) == (2 * GIB, GIB, 2 * GIB)
    assert (reading.swap_total_bytes, reading.swap_free_bytes) == (0, 0)


def test_a_limit_above_the_machine_is_none(make_machine):
    root = make_machine(
        {
            "proc/meminfo": texts.MEMINFO,
            "proc/self/cgroup": texts.V1_CGROUP,
            "proc/self/mountinfo": texts.V1_MOUNTINFO,
            f"{GROUP}.limit_in_bytes": str(64 * GIB),
            f"{GROUP}.usage_in_bytes": "0",
        }
    )
    reading = MemoryProbe(root).read()
    assert reading.limit_bytes is None
    assert reading.total_bytes == 24684092 * KIB


def test_a_machine_that_has_less_than_the_group_may_take(make_machine):
    meminfo = f"MemTotal: {4 * GIB // KIB} kB\nMemAvailable: 1024 kB\n"
    root = make_machine(
        {
            "proc/meminfo": meminfo,
            "proc/self/cgroup": texts.V1_CGROUP,
            "proc/self/mountinfo": texts.V1_MOUNTINFO,
            f"{GROUP}.limit_in_bytes": str(2 * GIB),
            f"{GROUP}.usage_in_bytes": "0",
        }
    )
    reading = MemoryProbe(root).read()
    assert (reading.total_bytes, reading.available_bytes) == (2 * GIB, 1024 * KIB)


@pytest.mark.parametrize(
    ("own", "expected"), [("some avg10=50.00 avg60=0.00 avg300=0.00 total=1\n", 0.5), ("", 0.1234)]
)
def test_waiting_within_a_group_is_that_of_the_group_where_it_tells(make_machine, own, expected):
    root = make_machine(
        {
            "proc/meminfo": texts.MEMINFO,
            "proc/pressure/memory": texts.PRESSURE,
            "proc/self/cgroup": texts.DOCKER_V2_CGROUP,
            "proc/self/mountinfo": texts.DOCKER_V2_MOUNTINFO,
            "sys/fs/cgroup/memory.max": str(GIB),
            "sys/fs/cgroup/memory.current": "0",
            "sys/fs/cgroup/memory.pressure": own,
        }
    )
    assert MemoryProbe(root).read().stalled_ratio == pytest.approx(expected)


def test_without_proc_psutil_tells(tmp_path):
    reading = MemoryProbe(tmp_path).read()
    assert reading.total_bytes == psutil.virtual_memory().total
    assert 0 < reading.available_bytes <= reading.total_bytes
    assert reading.stalled_ratio is None
    own = MemoryProbe(tmp_path).process(os.getpid())
    assert own.anonymous_bytes == own.resident_bytes > 1_000_000


def recorded_sysctl(**values: bytes) -> darwin.Sysctl:
    return lambda name: values.get(name.replace(".", "_"))


@pytest.mark.parametrize(
    ("raw", "level"),
    [
        (b"\x01\x00\x00\x00", 1),
        (b"\x02\x00\x00\x00", 2),
        (b"\x04\x00\x00\x00", 4),
        (b"\x04\x00\x00\x00\x00\x00\x00\x00", 4),
        (b"\x03\x00\x00\x00", None),
        (b"\xff\xff\xff\xff", None),
        (b"\x01", None),
        (b"", None),
        (None, None),
    ],
)
def test_pressure_level_of_macos(raw, level):
    values = {} if raw is None else {"kern_memorystatus_vm_pressure_level": raw}
    assert darwin.pressure_level(recorded_sysctl(**values)) == level


@pytest.mark.parametrize(
    ("raw", "total", "limit"),
    [
        (b"\x00\x00\x00\x00", 32 * GIB, 32 * GIB * 2 // 3),
        (b"\x00\x00\x00\x00", 36 * GIB, 27 * GIB),
        (b"\x00\x60\x00\x00", 32 * GIB, 24 * GIB),
        (b"\x00\x60\x00\x00", 16 * GIB, 16 * GIB),
        (b"\xff\xff\xff\xff", 16 * GIB, None),
        (b"odd", 16 * GIB, None),
        (None, 16 * GIB, None),
    ],
)
def test_wired_limit_of_macos(raw, total, limit):
    values = {} if raw is None else {"iogpu_wired_limit_mb": raw}
    assert darwin.wired_limit_bytes(recorded_sysctl(**values), total) == limit


def test_a_variable_that_no_kernel_has():
    assert darwin.read_sysctl("autotune.no_such_variable") is None


def test_on_macos_both_are_asked_for(monkeypatch):
    answers = {"kern.memorystatus_vm_pressure_level": b"\x02\0\0\0", "iogpu.wired_limit_mb": b"\x40\0\0\0"}
    monkeypatch.setattr("autotuned.hardware.memory._is_mac", lambda: True)
    monkeypatch.setattr(darwin, "read_sysctl", answers.get)
    reading = MemoryProbe().read()
    assert (reading.os_pressure_level, reading.wired_limit_bytes) == (2, 64 << 20)
