"""Which GPUs the machine has that this engine could use, whether or not its build can.

``builds`` asks once. Pure reading of small files under a root, so that tests can lay one out.
Invariant: it starts nothing, asks no driver, and never raises for what it finds or does not find.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

AMD_VENDOR = "0x1002"
GIB_BYTES = 1 << 30
# What a name in these files may have at most.
LONGEST_TEXT = 4096


def machine_gpus(root: Path = Path("/"), *, platform: str = sys.platform) -> tuple[str, ...]:
    """A name for each GPU, for example "NVIDIA H100 80GB HBM3"."""
    if platform == "darwin":
        return ("Apple GPU",) if os.uname().machine == "arm64" else ()
    if not platform.startswith("linux"):
        return ()
    return (*_nvidia_gpus(root), *_amd_gpus(root))


def _nvidia_gpus(root: Path) -> tuple[str, ...]:
    driver = root / "proc/driver/nvidia"
    if not ((driver / "version").exists() or (root / "dev/nvidia0").exists()):
        return ()
    names = (_nvidia_name(_text(path)) for path in sorted(driver.glob("gpus/*/information")))
    return tuple(name for name in names if name) or ("NVIDIA GPU",)


def _nvidia_name(information: str) -> str:
    """The line "Model: " of what the driver tells of a GPU."""
    for line in information.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model" and (name := value.strip()):
            return name if name.startswith("NVIDIA") else f"NVIDIA {name}"
    return ""


def _amd_gpus(root: Path) -> tuple[str, ...]:
    names = []
    for vendor in sorted((root / "sys/class/drm").glob("card*/device/vendor")):
        memory_bytes = _text(vendor.with_name("mem_info_vram_total"))
        if _text(vendor) == AMD_VENDOR and memory_bytes.isdecimal():
            product = _text(vendor.with_name("product_name")) or "GPU"
            name = product if product.startswith("AMD") else f"AMD {product}"
            names.append(f"{name} with {int(memory_bytes) / GIB_BYTES:.1f} GiB")
    return tuple(names)


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(LONGEST_TEXT).strip()
    except OSError:
        return ""
