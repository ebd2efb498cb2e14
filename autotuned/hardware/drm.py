"""GPUs of AMD and Intel, as their Linux drivers tell of them under /sys/class/drm.

``hardware.linux`` reads them each time, a few files for each. Invariant: one of another maker, and a virtual
one, is left out; memory that no driver tells is 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.hardware import Bandwidth, Gpu, GpuVendor
from autotuned.hardware.specified import amd_specification, intel_specifications
from autotuned.hardware.texts import read_text, whole_number

_CARD = re.compile(r"card\d+", re.ASCII)
_AMD, _INTEL = "0x1002", "0x8086"
_UNNAMED_VRAM = frozenset({"", "unknown"})
_MOST_CARVED_OUT_BYTES = 4 << 30
_INTEL_INTEGRATED_SLOT = "0000:00:02.0"
_MEMORY_WINDOW = 2
"""The window of a discrete GPU of Intel through which its memory is seen, among those of its PCI device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card as the driver tells of it; PCI numbers in hexadecimal, lower case, without "0x"."""

    vendor: str
    device: str
    revision: str = ""
    slot: str = ""
    product: str = ""
    vram_maker: str = ""
    memory_bytes: int = 0
    used_bytes: int | None = None
    window_bytes: int = 0
    driver_version: str = ""


def read_gpus(root: Path) -> tuple[Gpu, ...]:
    """GPUs of AMD and Intel, discrete ones first."""
    cards = [_read_card(root, folder) for folder in _card_folders(root / "sys/class/drm")]
    gpus = [gpu for card in cards if (gpu := gpu_of(card)) is not None]
    return tuple(sorted(gpus, key=lambda gpu: gpu.unified))


def gpu_of(card: Card) -> Gpu | None:
    """The GPU of a card; None for one of another maker."""
    if card.vendor == _AMD:
        return _amd(card)
    return _intel(card) if card.vendor == _INTEL else None


def parse_window(resource: str, number: int) -> int:
    """Bytes of a PCI device's window, of its ``resource``: a line of first, last and flags for each."""
    lines = resource.splitlines()
    try:
        first, last = (int(word, 16) for word in lines[number].split()[:2])
    except (IndexError, ValueError):
        return 0
    return last - first + 1 if last > first else 0


def _amd(card: Card) -> Gpu:
    known = amd_specification(card.device, card.revision)
    free = None if card.used_bytes is None else max(0, card.memory_bytes - card.used_bytes)
    return Gpu(
        name=(known.name if known else card.product) or f"AMD GPU 1002:{card.device}",
        vendor=GpuVendor.AMD,
        unified=known.unified if known else _is_carved_out(card),
        memory_bytes=card.memory_bytes,
        free_bytes=free,
        bandwidth=known.bandwidth if known else Bandwidth(),
        driver=card.driver_version,
    )


def _is_carved_out(card: Card) -> bool:
    """Whether the memory is a part of the RAM that the firmware set aside.

    No file says so. That memory has no maker, which old discrete GPUs do not tell either; but they have
    more of it than firmware sets aside unasked.
    """
    return card.vram_maker in _UNNAMED_VRAM and card.memory_bytes <= _MOST_CARVED_OUT_BYTES


def _intel(card: Card) -> Gpu:
    known = intel_specifications(card.device)
    if not known and card.slot == _INTEL_INTEGRATED_SLOT:
        return Gpu(name="Intel integrated graphics", vendor=GpuVendor.INTEL, unified=True)
    sizes = {line.memory_bytes for line in known}
    memory = card.memory_bytes or (sizes.pop() if len(sizes) == 1 else card.window_bytes)
    exact = next((line for line in known if line.memory_bytes == memory), None)
    return Gpu(
        name=known[0].name if known else f"Intel GPU 8086:{card.device}",
        vendor=GpuVendor.INTEL,
        memory_bytes=exact.memory_bytes if exact else card.memory_bytes,
        bandwidth=exact.bandwidth if exact else Bandwidth(),
        driver=card.driver_version,
    )


def _read_card(root: Path, folder: Path) -> Card:
    device = folder / "device"
    uevent = dict(line.split("=", 1) for line in _text(device / "uevent").splitlines() if "=" in line)
    return Card(
        vendor=_text(device / "vendor"),
        device=_text(device / "device").removeprefix("0x"),
        revision=_text(device / "revision").removeprefix("0x"),
        slot=uevent.get("PCI_SLOT_NAME", ""),
        product=_text(device / "product_name"),
        vram_maker=_text(device / "mem_info_vram_vendor").lower(),
        memory_bytes=_number(device / "mem_info_vram_total") or _number(folder / "lmem_total_bytes") or 0,
        used_bytes=_number(device / "mem_info_vram_used"),
        window_bytes=parse_window(_text(device / "resource"), _MEMORY_WINDOW),
        driver_version=_text(root / "sys/module" / uevent.get("DRIVER", "-") / "version"),
    )


def _card_folders(folder: Path) -> list[Path]:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return []
    cards = [name for name in names if _CARD.fullmatch(name)]  # connectors are called card0-DP-1
    return [folder / name for name in sorted(cards, key=lambda name: int(name.removeprefix("card")))]


def _text(path: Path) -> str:
    return (read_text(path) or "").strip()


def _number(path: Path) -> int | None:
    return whole_number(_text(path))
