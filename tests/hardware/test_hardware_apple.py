"""Macs from what sysctl and pmset printed on them."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.hardware import (
    Bandwidth,
    BandwidthSource,
    Cpu,
    Gpu,
    GpuVendor,
    Hardware,
    PowerSource,
    ThermalState,
)
from autotuned.hardware import apple
from tests import recorded_macs as macs

GIB = 1 << 30


def read(sysctl: str) -> Hardware:
    return apple.hardware_of(apple.parse_sysctl(sysctl))


def specified(gigabytes_per_second: float) -> Bandwidth:
    return Bandwidth(bytes_per_second=int(gigabytes_per_second * 1e9), source=BandwidthSource.SPECIFIED)


def test_a_mac():
    bandwidth = specified(68.25)
    assert read(macs.M1_8) == Hardware(
        system="macOS 14.5",
        model="MacBookAir10,1",
        cpu=Cpu(
            model="Apple M1",
            architecture="arm64",
            physical_cores_count=8,
            logical_cores_count=8,
            performance_cores_count=4,
            instruction_sets=("NEON", "FP16", "DOTPROD"),
        ),
        memory_bytes=8 * GIB,
        memory_bandwidth=bandwidth,
        gpus=(Gpu(name="Apple M1", vendor=GpuVendor.APPLE, unified=True, bandwidth=bandwidth),),
    )


def test_a_mac_with_a_processor_of_intel():
    mac = read(macs.INTEL_16)
    assert mac.cpu == Cpu(
        model="Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz",
        architecture="x86_64",
        physical_cores_count=6,
        logical_cores_count=12,
        instruction_sets=("SSE4.2", "AVX", "F16C", "FMA", "AVX2"),
    )
    assert (mac.gpus, mac.memory_bandwidth) == ((), Bandwidth())


@pytest.mark.parametrize(
    ("chip", "cores", "gib", "bandwidth"),
    [
        ("Apple M3 Max", 14, 36, specified(300)),
        ("Apple M3 Max", 16, 128, specified(400)),
        ("Apple M4 Max", 14, 36, specified(410)),
        ("Apple M4 Max", 16, 64, specified(546)),
        ("Apple M5 Max", 18, 36, specified(460)),
        ("Apple M5 Max", 18, 128, specified(614)),
        ("Apple M5 Max", 18, 96, Bandwidth()),  # not sold: nobody says
        ("Apple M5 Ultra", 36, 256, specified(1200)),
        ("Apple M6", 12, 16, specified(153)),
        ("Apple M6", 12, 32, specified(170)),
        ("Apple M9", 8, 16, Bandwidth()),
        ("Apple M1 (Virtual)", 4, 8, Bandwidth()),
    ],
)
def test_chips_that_come_with_several_bandwidths(chip, cores, gib, bandwidth):
    text = f"machdep.cpu.brand_string: {chip}\nhw.physicalcpu: {cores}\nhw.memsize: {gib * GIB}\n"
    mac = read(text)
    assert mac.memory_bandwidth == bandwidth
    assert [gpu.bandwidth for gpu in mac.gpus] == [bandwidth]


def test_a_virtual_mac_whose_cores_are_all_of_one_kind():
    text = "machdep.cpu.brand_string: Apple M1 (Virtual)\nhw.physicalcpu: 3\nhw.perflevel0.physicalcpu: 3\n"
    assert read(text).cpu.performance_cores_count == 0


def test_what_sysctl_complains_about_is_no_variable():
    text = f"sysctl: unknown oid 'hw.optional.arm.FEAT_SVE'\n{macs.M4_24}"
    assert read(text) == read(macs.M4_24)


def test_a_mac_that_tells_nothing():
    mac = read("")
    assert (mac.system, mac.model, mac.memory_bytes, mac.gpus) == ("macOS", "", 0, ())


@pytest.mark.parametrize(
    ("text", "power"),
    [
        (macs.ON_MAINS, (PowerSource.MAINS, 83)),
        (macs.ON_BATTERY, (PowerSource.BATTERY, 78)),
        (macs.DESKTOP, (PowerSource.MAINS, None)),
        ("Now drawing from 'UPS Power'\n -UPS (id=1)\t64%; discharging\n", (PowerSource.BATTERY, None)),
        ("", (PowerSource.UNKNOWN, None)),
        ("Now drawing from 'Sun Power'\n -InternalBattery-0\t999%\n", (PowerSource.UNKNOWN, 100)),
    ],
)
def test_what_feeds_a_mac(text, power):
    assert apple.parse_battery(text) == power


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (macs.COOL, ThermalState.NOMINAL),
        (macs.COOL_INTEL, ThermalState.NOMINAL),
        (macs.THROTTLED, ThermalState.FAIR),
        (macs.THROTTLED.replace("62", "24"), ThermalState.SERIOUS),
        ("Thermal Warning Level = 5\n", ThermalState.SERIOUS),
        ("Thermal Warning Level = 10\n", ThermalState.CRITICAL),
        ("Thermal Warning Level = 77\n", ThermalState.UNKNOWN),
        ("", ThermalState.UNKNOWN),
    ],
)
def test_how_heat_slows_a_mac(text, state):
    assert apple.parse_heat(text) is state


@given(st.text())
def test_nonsense_is_a_mac_without_figures(text):
    read(text)
    apple.parse_battery(text)
    apple.parse_heat(text)


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_the_programs_of_macos_are_not_missed_elsewhere():
    assert apple.read_hardware().memory_bytes == 0
    assert apple.read_power().source is PowerSource.UNKNOWN


@pytest.mark.skipif(sys.platform != "darwin", reason="asks macOS")
def test_this_mac():
    mac = apple.read_hardware()
    assert mac.memory_bytes > GIB
    assert mac.cpu.physical_cores_count > 0
    assert mac.cpu.model
    assert apple.read_power().source is not PowerSource.UNKNOWN
