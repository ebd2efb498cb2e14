"""The measured bandwidth of memory: how it is measured, and when it is measured again."""

from __future__ import annotations

import ctypes
import json
import threading

import psutil
import pytest

from autotuned.core.hardware import Bandwidth, BandwidthSource, Cpu
from autotuned.hardware import read_rate
from autotuned.hardware.bandwidth import MeasuredBandwidth

GIB = 1 << 30
MIB = 1 << 20
CPU = Cpu(model="AMD EPYC", architecture="x86_64", physical_cores_count=2, logical_cores_count=4)
OTHER_CPU = Cpu(model="Other", architecture="x86_64", physical_cores_count=2, logical_cores_count=4)
QUIET, BUSY = 0.3, 3.0


class Meter:
    """Measures what it is told to, and counts how often it was asked."""

    def __init__(self, *rates: int) -> None:
        self.rates = list(rates)
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.rates.pop(0)


def measured(rate: int) -> Bandwidth:
    return Bandwidth(bytes_per_second=rate, source=BandwidthSource.MEASURED)


def test_a_machine_is_measured_once_for_good(tmp_path):
    file = tmp_path / "state" / "bandwidth.json"
    meter = Meter(41)
    first = MeasuredBandwidth(file, meter, lambda: QUIET)
    assert [first.read(CPU, 8 * GIB), first.read(CPU, 8 * GIB)] == [measured(41)] * 2
    assert MeasuredBandwidth(file, meter, lambda: QUIET).read(CPU, 8 * GIB) == measured(41)
    assert meter.count == 1
    assert [path.name for path in file.parent.iterdir()] == ["bandwidth.json"]


@pytest.mark.parametrize(("cpu", "memory"), [(OTHER_CPU, 8 * GIB), (CPU, 16 * GIB)])
def test_another_machine_with_the_same_home_is_measured_itself(tmp_path, cpu, memory):
    file = tmp_path / "bandwidth.json"
    MeasuredBandwidth(file, Meter(41), lambda: QUIET).read(CPU, 8 * GIB)
    assert MeasuredBandwidth(file, Meter(52), lambda: QUIET).read(cpu, memory) == measured(52)


def test_a_busy_machine_is_measured_again_when_it_is_quiet(tmp_path):
    file = tmp_path / "bandwidth.json"
    meter = Meter(20, 41)
    assert MeasuredBandwidth(file, meter, lambda: BUSY).read(CPU, 8 * GIB) == measured(20)
    load = [BUSY]
    later = MeasuredBandwidth(file, meter, lambda: load[0])
    assert later.read(CPU, 8 * GIB) == measured(20)
    assert meter.count == 1
    load[0] = QUIET
    assert later.read(CPU, 8 * GIB) == measured(41)
    assert MeasuredBandwidth(file, meter, lambda: QUIET).read(CPU, 8 * GIB) == measured(41)
    assert meter.count == 2


def test_a_worse_figure_does_not_replace_a_better_one(tmp_path):
    file = tmp_path / "bandwidth.json"
    MeasuredBandwidth(file, Meter(41), lambda: BUSY).read(CPU, 8 * GIB)
    assert MeasuredBandwidth(file, Meter(30), lambda: QUIET).read(CPU, 8 * GIB) == measured(41)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"version": 1}',
        json.dumps(
            {"version": 0, "cpu": "AMD EPYC", "memory_bytes": 8 * GIB, "bytes_per_second": 7}
        ).encode(),
        json.dumps(
            {"version": 1, "cpu": "AMD EPYC", "memory_bytes": 8 * GIB, "bytes_per_second": -7}
        ).encode(),
        json.dumps(
            {"version": 1, "cpu": "AMD EPYC", "memory_bytes": 8 * GIB, "bytes_per_second": "7"}
        ).encode(),
    ],
)
def test_a_file_that_says_nothing_costs_a_measurement(tmp_path, content):
    file = tmp_path / "bandwidth.json"
    file.write_bytes(content)
    assert MeasuredBandwidth(file, Meter(41), lambda: QUIET).read(CPU, 8 * GIB) == measured(41)
    assert json.loads(file.read_text())["bytes_per_second"] == 41


def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "home").write_text("a file where the folder should be")
    meter = Meter(41)
    bandwidth = MeasuredBandwidth(tmp_path / "home" / "bandwidth.json", meter, lambda: QUIET)
    assert [bandwidth.read(CPU, 8 * GIB), bandwidth.read(CPU, 8 * GIB)] == [measured(41)] * 2
    assert meter.count == 1


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "bandwidth.json").mkdir()
    bandwidth = MeasuredBandwidth(tmp_path / "bandwidth.json", Meter(41), lambda: QUIET)
    assert bandwidth.read(CPU, 8 * GIB) == measured(41)
    assert [path.name for path in tmp_path.iterdir()] == ["bandwidth.json"]


def test_a_machine_that_cannot_be_measured_is_asked_again(tmp_path):
    file = tmp_path / "bandwidth.json"
    bandwidth = MeasuredBandwidth(file, Meter(0, 41), lambda: QUIET)
    assert bandwidth.read(CPU, 8 * GIB) == Bandwidth()
    assert bandwidth.read(CPU, 8 * GIB) == measured(41)


@pytest.mark.parametrize(
    ("cache_mib", "available_mib", "size_mib"),
    [
        (0, 8192, 32),  # macOS does not tell
        (12, 8192, 48),
        (32, 8192, 128),
        (96, 65_536, 256),
        (256, 500_000, 512),
        (1152, 500_000, 0),  # not even twice the cache
        (12, 300, 37.5),
        (12, 200, 0),  # of so little nothing is taken
        (0, 100, 0),
    ],
)
def test_how_much_is_read(cache_mib, available_mib, size_mib):
    assert read_rate.buffer_bytes(cache_mib * MIB, available_mib * MIB) == size_mib * MIB


def test_caches_that_cores_share_count_once(make_machine):
    folder = "sys/devices/system/cpu"
    shared = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}
    files = {}
    for number, cpus in shared.items():
        files[f"{folder}/cpu{number}/cache/index3/size"] = "32768K\n"
        files[f"{folder}/cpu{number}/cache/index3/shared_cpu_list"] = f"{cpus}\n"
    assert read_rate.last_cache_bytes(make_machine(files)) == 64 * MIB


def test_this_machine_reads_at_a_rate_that_memory_has():
    rate = read_rate.measure_bytes_per_second(64 * MIB, 2)
    assert 10**8 < rate < 10**13


def test_every_page_was_written_before_it_is_read(monkeypatch):
    # What was never written is one page of zeros, and lies in the cache.
    zeros = []
    read_span = read_rate._read_span

    def look(find, address, size, offset):
        zeros.append(ctypes.string_at(address, size).count(b"\0"))
        return read_span(find, address, size, offset)

    monkeypatch.setattr(read_rate, "_read_span", look)
    assert read_rate.measure_bytes_per_second(8 * MIB, 2) > 0
    assert zeros
    assert set(zeros) == {0}


def test_measuring_gives_back_what_it_took():
    threads = threading.active_count()
    process = psutil.Process()
    before = process.memory_info().rss
    read_rate.measure_bytes_per_second(128 * MIB, 2)
    assert process.memory_info().rss - before < 32 * MIB
    assert threading.active_count() == threads


def test_more_threads_than_the_buffer_has_room_for():
    assert read_rate.measure_bytes_per_second(4 * MIB, 1000) > 0


def test_without_threads_there_is_no_figure(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert read_rate.measure_bytes_per_second(8 * MIB, 2) == 0
