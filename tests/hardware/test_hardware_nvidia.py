"""GPUs of NVIDIA: through the driver's library, without it, and those that share the RAM."""

from __future__ import annotations

import pynvml
import pytest

from autotuned.core.hardware import Bandwidth, BandwidthSource, Gpu, GpuVendor
from autotuned.hardware.linux import read_gpus as read_all_gpus
from autotuned.hardware.nvidia import Figures, gpu_of, parse_information, read_gpus
from tests import recorded_pcs as pcs
from tests.hardware.fake_nvml import Device, FakeNvml

MIB = 1 << 20
DRIVER = {
    "dev/nvidiactl": "",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module\n",
}
INFORMATION = """\
Model: \t\t NVIDIA GeForce RTX 3090
IRQ:   \t\t 158
GPU UUID: \t GPU-8a56a4bc-e184-a047-2620-be19fdf913d5
Video BIOS: \t 94.02.42.00.a1
Bus Type: \t PCIe
Bus Location: \t 0000:0a:00.0
Device Minor: \t 0
GPU Excluded:\t No
"""
RTX_3090 = Device(
    name="NVIDIA GeForce RTX 3090",
    memory=(24_576 * MIB, 23_800 * MIB),
    clock_megahertz=9751,
    bus_bits=384,
)
GB10 = Device(name="NVIDIA GB10", memory=pynvml.NVML_ERROR_NOT_SUPPORTED, clock_megahertz=4000, bus_bits=256)


def specified(bytes_per_second: int) -> Bandwidth:
    return Bandwidth(bytes_per_second=bytes_per_second, source=BandwidthSource.SPECIFIED)


def test_a_gpu_with_memory_of_its_own(make_machine):
    nvml = FakeNvml(RTX_3090)
    assert read_gpus(make_machine(DRIVER), lambda: nvml) == (
        Gpu(
            name="NVIDIA GeForce RTX 3090",
            vendor=GpuVendor.NVIDIA,
            memory_bytes=24_576 * MIB,
            free_bytes=23_800 * MIB,
            bandwidth=specified(936_096_000_000),
            driver="580.173.02",
        ),
    )
    assert nvml.open_count == 0


def test_a_gpu_that_shares_the_memory(make_machine):
    nvml = FakeNvml(GB10)
    assert read_gpus(make_machine(DRIVER), lambda: nvml) == (
        Gpu(
            name="NVIDIA GB10",
            vendor=GpuVendor.NVIDIA,
            unified=True,
            bandwidth=specified(273_000_000_000),
            driver="580.173.02",
        ),
    )


def test_a_driver_that_tells_no_memory_at_all(make_machine):
    [gpu] = read_gpus(make_machine(DRIVER), lambda: FakeNvml(Device(name="Orin (nvgpu)", memory=(0, 0))))
    assert (gpu.unified, gpu.memory_bytes, gpu.free_bytes, gpu.bandwidth) == (True, 0, None, Bandwidth())


def test_memory_that_this_user_may_not_see_is_not_shared(make_machine):
    hidden = Device(name="NVIDIA A100", memory=pynvml.NVML_ERROR_NO_PERMISSION)
    [gpu] = read_gpus(make_machine(DRIVER), lambda: FakeNvml(hidden))
    assert (gpu.unified, gpu.memory_bytes, gpu.free_bytes) == (False, 0, None)


@pytest.mark.parametrize(
    ("megahertz", "bits", "gigabytes_per_second"),
    [
        (5005, 256, 320),  # GTX 1080: GDDR5X, 10 Gbps
        (1593, 5120, 2039),  # A100 80 GB: HBM2e
        (10_501, 384, 1008),  # RTX 4090: GDDR6X, 21 Gbps
        (14_001, 512, 1792),  # RTX 5090: GDDR7, 28 Gbps
    ],
)
def test_bandwidths_agree_with_what_the_maker_says(megahertz, bits, gigabytes_per_second):
    figures = Figures(name="", memory_bytes=1, memory_megahertz=megahertz, bus_bits=bits)
    told = gpu_of(figures, "").bandwidth.bytes_per_second / 1e9
    assert told == pytest.approx(gigabytes_per_second, rel=1e-3)


def test_several_gpus_come_in_the_order_of_the_driver(make_machine):
    small = Device(name="NVIDIA GeForce RTX 3060", memory=(12_288 * MIB, 12_000 * MIB))
    gpus = read_gpus(make_machine(DRIVER), lambda: FakeNvml(RTX_3090, small))
    assert [gpu.name for gpu in gpus] == ["NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3060"]
    assert gpus[1].bandwidth == Bandwidth()


def test_without_the_driver_nothing_is_loaded(make_machine):
    def load():
        raise AssertionError("it was loaded")

    assert read_gpus(make_machine({}), load) == ()


@pytest.mark.parametrize(
    "nvml",
    [
        FakeNvml(init_error=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH),
        FakeNvml(RTX_3090, count_error=pynvml.NVML_ERROR_GPU_IS_LOST),
        FakeNvml(),
    ],
)
def test_a_library_that_fails_leaves_what_the_files_tell(make_machine, nvml):
    files = {**DRIVER, "proc/driver/nvidia/gpus/0000:0a:00.0/information": INFORMATION}
    assert read_gpus(make_machine(files), lambda: nvml) == (
        Gpu(name="NVIDIA GeForce RTX 3090", vendor=GpuVendor.NVIDIA),
    )
    assert nvml.open_count == 0


def test_the_real_wrapper_without_its_library(make_machine):
    # Where there is a driver, it answers itself.
    files = {**DRIVER, "proc/driver/nvidia/gpus/0000:0a:00.0/information": INFORMATION}
    assert [gpu.vendor for gpu in read_gpus(make_machine(files))][:1] == [GpuVendor.NVIDIA]


def test_windows_keeps_the_library_elsewhere(make_machine):
    root = make_machine({"usr/lib/wsl/lib/libnvidia-ml.so.1": ""})
    assert len(read_gpus(root, lambda: FakeNvml(RTX_3090))) == 1


def test_gpus_with_memory_of_their_own_come_first(make_machine):
    files = {**DRIVER, **pcs.amd_card("1002:744c", "c8", vram=24 << 30, used=0), **pcs.INTEL_GRAPHICS}
    gpus = read_all_gpus(make_machine(files), lambda: FakeNvml(GB10))
    assert [gpu.unified for gpu in gpus] == sorted(gpu.unified for gpu in gpus)


@pytest.mark.parametrize("text", ["", "Model\n", "IRQ: 5\n", "\0\0"])
def test_information_without_a_name(text):
    assert parse_information(text) == ""
