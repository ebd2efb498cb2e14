"""What Linux wrote on PCs in the files that are read of it, shortened.

Sources: /proc/cpuinfo of i5-8250U, Ryzen 7 PRO 2700U, Ryzen 7 7735HS and i5-12400 from dumps on GitHub and mailing
lists; of the others the name from there, the flags of one of the same generation. Their further threads are
numbered as the kernel does: each core's two one after the other, or all first ones before all second ones.
Files of amdgpu: fixtures and reports of RX 7900 XTX and Strix Halo; names by PCI number from amdgpu.ids.
Battery: tlp-stat of a ThinkPad E495 on an OpenBSD list.
"""

from __future__ import annotations

from collections.abc import Iterable

HASWELL_FLAGS = (
    "fpu sse sse2 ht lm pni ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes avx f16c rdrand bmi1 avx2 bmi2"
)
ALDER_LAKE_FLAGS = (
    f"{HASWELL_FLAGS} adx clflushopt clwb sha_ni avx_vnni hfi gfni vaes vpclmulqdq fsrm serialize"
)
SKYLAKE_SERVER_FLAGS = f"{HASWELL_FLAGS} avx512f avx512dq rdseed adx avx512cd avx512bw avx512vl avx512_vnni"
ZEN_FLAGS = f"{HASWELL_FLAGS} sse4a misalignsse 3dnowprefetch rdseed adx sha_ni clzero"
ZEN4_FLAGS = f"{ZEN_FLAGS} avx512f avx512dq avx512_bf16 avx512vbmi avx512_vnni avx512_bitalg vaes fsrm"
ZEN5_FLAGS = f"{ZEN4_FLAGS} avx_vnni movdiri movdir64b avx512_vp2intersect"


def cpuinfo(maker: str, name: str, flags: str, cores: Iterable[int]) -> str:
    """The file of a processor whose threads are on these cores."""
    numbers = list(cores)
    return "\n".join(
        f"processor\t: {number}\nvendor_id\t: {maker}\nmodel name\t: {name}\nphysical id\t: 0\n"
        f"siblings\t: {len(numbers)}\ncore id\t\t: {core}\ncpu cores\t: {len(set(numbers))}\n"
        f"fpu\t\t: yes\nflags\t\t: {flags}\nbugs\t\t: spectre_v1 spectre_v2\n"
        for number, core in enumerate(numbers)
    )


def neighbours(count: int) -> list[int]:
    """Cores of threads where the two of one core have numbers one after the other."""
    return [core for core in range(count) for _ in range(2)]


def halves(count: int) -> list[int]:
    """Cores of threads where all cores come once, and then again."""
    return [*range(count), *range(count)]


def amd(name: str, flags: str, cores: list[int]) -> dict[str, str]:
    return {"proc/cpuinfo": cpuinfo("AuthenticAMD", name, flags, cores)}


def intel(name: str, flags: str, cores: list[int]) -> dict[str, str]:
    return {"proc/cpuinfo": cpuinfo("GenuineIntel", name, flags, cores)}


def intel_hybrid(name: str, fast: int, small: int) -> dict[str, str]:
    """Fast cores with two threads each, then small ones with one."""
    cores = [*neighbours(fast), *range(fast, fast + small)]
    return {
        **intel(name, ALDER_LAKE_FLAGS, cores),
        "sys/devices/cpu_core/cpus": f"0-{2 * fast - 1}\n",
        "sys/devices/cpu_atom/cpus": f"{2 * fast}-{2 * fast + small - 1}\n",
    }


def system(maker: str, product: str, version: str = "", *, total_kib: int) -> dict[str, str]:
    """Ubuntu on a machine of this maker."""
    return {
        "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\n',
        "sys/class/dmi/id/sys_vendor": f"{maker}\n",
        "sys/class/dmi/id/product_name": f"{product}\n",
        "sys/class/dmi/id/product_version": f"{version}\n",
        "proc/meminfo": f"MemTotal:       {total_kib} kB\nMemFree:          904412 kB\n",
    }


def board(maker: str, name: str, *, total_kib: int) -> dict[str, str]:
    """Ubuntu on a machine that somebody put together around a board."""
    return {
        **system("To Be Filled By O.E.M.", "To Be Filled By O.E.M.", total_kib=total_kib),
        "sys/class/dmi/id/board_vendor": f"{maker}\n",
        "sys/class/dmi/id/board_name": f"{name}\n",
    }


def card(number: int, driver: str, pci: str, slot: str, revision: str = "00", **files: str) -> dict[str, str]:
    """A card under /sys/class/drm; ``pci`` like "1002:744c"."""
    device = f"sys/class/drm/card{number}/device"
    vendor, product = pci.split(":")
    return {
        f"{device}/vendor": f"0x{vendor}\n",
        f"{device}/device": f"0x{product}\n",
        f"{device}/revision": f"0x{revision}\n",
        f"{device}/uevent": f"DRIVER={driver}\nPCI_CLASS=30000\nPCI_ID={pci.upper()}\nPCI_SLOT_NAME={slot}\n",
        **{f"{device}/{name}": f"{content}\n" for name, content in files.items()},
    }


def amd_card(pci: str, revision: str, *, vram: int, used: int, vram_maker: str = "samsung") -> dict[str, str]:
    return card(
        1, "amdgpu", pci, "0000:03:00.0", revision,
        mem_info_vram_total=str(vram), mem_info_vram_used=str(used), mem_info_vram_vendor=vram_maker,
    )  # fmt: skip


INTEL_GRAPHICS = card(1, "i915", "8086:46a6", "0000:00:02.0")

BATTERY = {
    "sys/class/power_supply/AC/uevent": "POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE=0\n",
    "sys/class/power_supply/BAT0/uevent": """\
POWER_SUPPLY_NAME=BAT0
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_STATUS=Discharging
POWER_SUPPLY_PRESENT=1
POWER_SUPPLY_TECHNOLOGY=Li-poly
POWER_SUPPLY_CYCLE_COUNT=205
POWER_SUPPLY_POWER_NOW=6810000
POWER_SUPPLY_ENERGY_FULL_DESIGN=45280000
POWER_SUPPLY_ENERGY_FULL=42750000
POWER_SUPPLY_ENERGY_NOW=26430000
POWER_SUPPLY_CAPACITY=61
POWER_SUPPLY_MODEL_NAME=01AV446
POWER_SUPPLY_MANUFACTURER=SMP
""",
}
PLUGGED_IN = {
    **BATTERY,
    "sys/class/power_supply/AC/uevent": "POWER_SUPPLY_NAME=AC\nPOWER_SUPPLY_TYPE=Mains\nPOWER_SUPPLY_ONLINE=1\n",
}
