"""Recorded machines: what ``recommend`` and ``hardware`` are held against, and what the README shows of them.

``hardware`` is what the parsers make of recorded texts; figures of NVIDIA are those of nvidia-smi on such cards,
clock and width of memory from NVIDIA's specifications of them (twice the clock is the data rate of a pin).
Bandwidth of PCs' RAM is that of its modules, two channels of 8 bytes: a measurement would give less.

Memory is as such a machine has it with a browser and an editor open: on Macs 5 GiB in use of 8 and 7 of 16, on
Linux 3.6 of 8 and 5 of 16, and more on those with more, whose users keep more open. GPUs show a desktop.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from autotuned.core.hardware import Bandwidth, BandwidthSource, Gpu, Hardware, Power
from autotuned.core.memory import MemoryReading
from autotuned.hardware import apple, darwin, linux
from autotuned.hardware.nvidia import Figures, gpu_of
from autotuned.hardware.power import PowerReader
from tests import recorded_macs as macs
from tests import recorded_pcs as pcs

GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedMachine:
    """A machine as the parsers read it, and its memory at one moment of an ordinary day."""

    key: str
    title: str
    hardware: Hardware
    memory: MemoryReading
    in_readme: bool = False


def mac(
    key: str,
    title: str,
    sysctl: str,
    *,
    used_gib: float,
    battery: str = macs.ON_MAINS,
    in_readme: bool = False,
) -> RecordedMachine:
    hardware = apple.hardware_of(apple.parse_sysctl(sysctl))
    source, percent = apple.parse_battery(battery)
    total = hardware.memory_bytes
    return RecordedMachine(
        key=key,
        title=title,
        hardware=replace(
            hardware,
            power=Power(source=source, battery_percent=percent, thermal=apple.parse_heat(macs.COOL)),
        ),
        memory=MemoryReading(
            total_bytes=total,
            available_bytes=total - int(used_gib * GIB),
            swap_total_bytes=2 * GIB,
            swap_free_bytes=GIB,
            os_pressure_level=1,
            wired_limit_bytes=darwin.wired_limit_bytes({"iogpu.wired_limit_mb": bytes(4)}.get, total),
        ),
        in_readme=in_readme,
    )


def read_tree(files: dict[str, str]) -> Hardware:
    """What the readers of Linux make of a machine with these files."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        hardware = linux.read_hardware(root, "x86_64")
        return replace(hardware, gpus=linux.read_gpus(root), power=PowerReader(root).read())


def pc(
    key: str,
    title: str,
    *parts: dict[str, str],
    used_gib: float,
    ram_megatransfers: int,
    ram_channels: int = 2,
    nvidia: tuple[Gpu, ...] = (),
    in_readme: bool = False,
) -> RecordedMachine:
    hardware = read_tree({name: content for part in parts for name, content in part.items()})
    bandwidth = Bandwidth(
        bytes_per_second=ram_megatransfers * 10**6 * 8 * ram_channels, source=BandwidthSource.SPECIFIED
    )
    own = tuple(replace(gpu, bandwidth=bandwidth) if _reads_ram(gpu) else gpu for gpu in hardware.gpus)
    total = hardware.memory_bytes
    return RecordedMachine(
        key=key,
        title=title,
        hardware=replace(hardware, memory_bandwidth=bandwidth, gpus=(*nvidia, *own)),
        memory=MemoryReading(
            total_bytes=total,
            available_bytes=total - int(used_gib * GIB),
            swap_total_bytes=2 * GIB,
            swap_free_bytes=2 * GIB,
        ),
        in_readme=in_readme,
    )


def _reads_ram(gpu: Gpu) -> bool:
    return gpu.unified and not gpu.bandwidth.bytes_per_second


def nvidia(name: str, *, mib: int, used_mib: int, megahertz: int, bits: int) -> Gpu:
    figures = Figures(
        name=name,
        memory_bytes=mib * MIB,
        free_bytes=(mib - used_mib) * MIB,
        memory_megahertz=megahertz,
        bus_bits=bits,
    )
    return gpu_of(figures, "580.173.02")


_MACS = (
    mac("mac-m1-8", "MacBook Air M1, 8 GB", macs.M1_8, used_gib=5, battery=macs.ON_BATTERY, in_readme=True),
    mac("mac-m3-16", "MacBook Air M3, 16 GB", macs.M3_16, used_gib=7, in_readme=True),
    mac("mac-m4-24", "MacBook Pro M4, 24 GB", macs.M4_24, used_gib=8),
    mac("mac-m1-pro-32", "MacBook Pro M1 Pro, 32 GB", macs.M1_PRO_32, used_gib=9, in_readme=True),
    mac("mac-m4-pro-64", "Mac mini M4 Pro, 64 GB", macs.M4_PRO_64, used_gib=10, battery=macs.DESKTOP),
    mac("mac-m4-max-128", "MacBook Pro M4 Max, 128 GB", macs.M4_MAX_128, used_gib=12, in_readme=True),
)  # fmt: skip

_LAPTOPS = (
    pc("laptop-8", "Laptop with i5-8250U, 8 GB DDR4",
       pcs.system("LENOVO", "20L5CTO1WW", "ThinkPad T480", total_kib=7_852_932),
       pcs.intel("Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", pcs.HASWELL_FLAGS, pcs.halves(4)),
       pcs.card(1, "i915", "8086:5917", "0000:00:02.0"), pcs.BATTERY,
       used_gib=3.6, ram_megatransfers=2400, in_readme=True),
    pc("laptop-16", "Laptop with Ryzen 7 PRO 2700U, 16 GB DDR4",
       pcs.system("LENOVO", "20MUCTO1WW", "ThinkPad A485", total_kib=14_220_872),
       pcs.amd("AMD Ryzen 7 PRO 2700U w/ Radeon Vega Mobile Gfx", pcs.ZEN_FLAGS, pcs.neighbours(4)),
       pcs.amd_card("1002:15dd", "d0", vram=2 * GIB, used=412 * MIB, vram_maker="unknown"), pcs.BATTERY,
       used_gib=5, ram_megatransfers=2400, in_readme=True),
    pc("laptop-32", "Laptop with i7-12700H, 32 GB DDR5",
       pcs.system("Dell Inc.", "Precision 5570", total_kib=32_474_716),
       pcs.intel_hybrid("12th Gen Intel(R) Core(TM) i7-12700H", 6, 8), pcs.INTEL_GRAPHICS, pcs.PLUGGED_IN,
       used_gib=6.5, ram_megatransfers=4800),
    pc("laptop-64", "Laptop with Ryzen 7 7735HS, 64 GB DDR5",
       pcs.system("LENOVO", "21J9", "ThinkBook 16 G5+", total_kib=63_410_244),
       pcs.amd("AMD Ryzen 7 7735HS with Radeon Graphics", pcs.ZEN_FLAGS, pcs.neighbours(8)),
       pcs.amd_card("1002:1681", "c8", vram=2 * GIB, used=388 * MIB, vram_maker="unknown"), pcs.PLUGGED_IN,
       used_gib=8, ram_megatransfers=4800),
)  # fmt: skip

_WITH_NVIDIA = (
    pc("rtx-4060-8", "PC with RTX 4060, 8 GB",
       pcs.board("ASUSTeK COMPUTER INC.", "PRIME B760M-A D4", total_kib=32_643_600),
       pcs.intel_hybrid("13th Gen Intel(R) Core(TM) i5-13400F", 6, 4),
       nvidia=(nvidia("NVIDIA GeForce RTX 4060", mib=8188, used_mib=610, megahertz=8501, bits=128),),
       used_gib=5, ram_megatransfers=3200, in_readme=True),
    pc("rtx-3060-12", "PC with RTX 3060, 12 GB",
       pcs.board("Gigabyte Technology Co., Ltd.", "B550 AORUS ELITE V2", total_kib=16_288_412),
       pcs.amd("AMD Ryzen 5 5600X 6-Core Processor", pcs.ZEN_FLAGS, pcs.halves(6)),
       nvidia=(nvidia("NVIDIA GeForce RTX 3060", mib=12_288, used_mib=540, megahertz=7501, bits=192),),
       used_gib=4.5, ram_megatransfers=3200, in_readme=True),
    pc("rtx-4060-ti-16", "PC with RTX 4060 Ti, 16 GB",
       pcs.board("Micro-Star International Co., Ltd.", "PRO B650-P WIFI (MS-7D78)", total_kib=32_044_108),
       pcs.amd("AMD Ryzen 7 7700 8-Core Processor", pcs.ZEN4_FLAGS, pcs.halves(8)),
       nvidia=(nvidia("NVIDIA GeForce RTX 4060 Ti", mib=16_380, used_mib=590, megahertz=9001, bits=128),),
       used_gib=5, ram_megatransfers=5200),
    pc("rtx-4090-24", "PC with RTX 4090, 24 GB",
       pcs.board("ASUSTeK COMPUTER INC.", "ROG STRIX X670E-E GAMING WIFI", total_kib=64_964_884),
       pcs.amd("AMD Ryzen 9 7950X 16-Core Processor", pcs.ZEN4_FLAGS, pcs.halves(16)),
       nvidia=(nvidia("NVIDIA GeForce RTX 4090", mib=24_564, used_mib=780, megahertz=10_501, bits=384),),
       used_gib=7, ram_megatransfers=5200, in_readme=True),
    pc("rtx-3090-2x24", "Workstation with two RTX 3090, 2 x 24 GB",
       pcs.board("ASUSTeK COMPUTER INC.", "ProArt X570-CREATOR WIFI", total_kib=65_771_900),
       pcs.amd("AMD Ryzen 9 5950X 16-Core Processor", pcs.ZEN_FLAGS, pcs.halves(16)),
       nvidia=(nvidia("NVIDIA GeForce RTX 3090", mib=24_576, used_mib=720, megahertz=9751, bits=384),
               nvidia("NVIDIA GeForce RTX 3090", mib=24_576, used_mib=18, megahertz=9751, bits=384)),
       used_gib=7, ram_megatransfers=3200),
    pc("rtx-a6000-48", "Workstation with RTX A6000, 48 GB",
       pcs.system("Dell Inc.", "Precision 7920 Tower", total_kib=131_493_116),
       pcs.intel("Intel(R) Xeon(R) Gold 6226R CPU @ 2.90GHz", pcs.SKYLAKE_SERVER_FLAGS, pcs.halves(16)),
       nvidia=(nvidia("NVIDIA RTX A6000", mib=49_140, used_mib=420, megahertz=8001, bits=384),),
       used_gib=7, ram_megatransfers=2933, ram_channels=6),
)  # fmt: skip

_OTHERS = (
    pc("rx-7900-xtx-24", "PC with RX 7900 XTX, 24 GB",
       pcs.board("ASRock", "X670E Taichi", total_kib=64_947_200),
       pcs.amd("AMD Ryzen 9 7950X 16-Core Processor", pcs.ZEN4_FLAGS, pcs.halves(16)),
       pcs.amd_card("1002:744c", "c8", vram=25_753_026_560, used=536_870_912),
       used_gib=7, ram_megatransfers=5200),
    pc("strix-halo-128", "Framework Desktop, Ryzen AI Max+ 395, 128 GB",
       pcs.system("Framework", "Desktop (AMD Ryzen AI Max 300 Series)", "A5", total_kib=131_151_708),
       pcs.amd("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", pcs.ZEN5_FLAGS, pcs.halves(16)),
       pcs.amd_card("1002:1586", "c1", vram=536_870_912, used=241_172_480, vram_maker="unknown"),
       used_gib=6, ram_megatransfers=8000, ram_channels=4, in_readme=True),
)  # fmt: skip

MACHINES: tuple[RecordedMachine, ...] = (*_MACS, *_LAPTOPS, *_WITH_NVIDIA, *_OTHERS)
