"""What the system and the machine are called, as Linux tells it in files.

``hardware.linux`` reads it once. Invariant: what a maker left as the seller of the
firmware had it is no name.
"""

from __future__ import annotations

from pathlib import Path

from autotuned.hardware.texts import read_text

_NO_NAMES = frozenset(
    {
        "",
        "default string",
        "invalid",
        "n/a",
        "none",
        "not applicable",
        "not specified",
        "o.e.m.",
        "oem",
        "system manufacturer",
        "system product name",
        "system version",
        "to be filled by o.e.m.",
        "undefined",
        "unknown",
    }
)
_NAMES_BY_VERSION = "LENOVO"
"""The maker whose product's name stands in the field for its version; the field for the name has a number."""

_LONG_MAKERS = {
    "ASUSTeK COMPUTER INC.": "ASUS",
    "Dell Inc.": "Dell",
    "Gigabyte Technology Co., Ltd.": "Gigabyte",
    "LENOVO": "Lenovo",
    "Micro-Star International Co., Ltd.": "MSI",
}


def parse_os_release(text: str) -> str:
    """The system with its version, of /etc/os-release; "" where it has none. os-release(5)."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    named = {key: value.strip().strip("\"'") for key, _, value in lines}
    return named.get("PRETTY_NAME") or " ".join(filter(None, (named.get("NAME"), named.get("VERSION_ID"))))


def read_system(root: Path) -> str:
    """The system, for example "Debian GNU/Linux 12 (bookworm)"; "Linux" where it has no name."""
    release = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release") or ""
    name = parse_os_release(release) or "Linux"
    kernel = read_text(root / "proc/sys/kernel/osrelease") or ""
    return f"{name} under Windows" if "microsoft" in kernel.lower() else name


def machine_model(maker: str, product: str, version: str) -> str:
    """Maker and product, of the three fields that the firmware has for them; "" where there are none."""
    model = version if maker.upper() == _NAMES_BY_VERSION and _named(version) else product
    maker = _LONG_MAKERS.get(maker, maker)
    if not _named(model):
        return ""
    return model if not _named(maker) or model.lower().startswith(maker.lower()) else f"{maker} {model}"


def read_model(root: Path) -> str:
    """What the maker calls the machine, else its board; of DMI, or the device tree of ARM boards."""

    def dmi(name: str) -> str:
        return " ".join((read_text(root / "sys/class/dmi/id" / name) or "").split())

    return (
        machine_model(dmi("sys_vendor"), dmi("product_name"), dmi("product_version"))
        or machine_model(dmi("board_vendor"), dmi("board_name"), "")
        or (read_text(root / "proc/device-tree/model") or "").strip("\0 \n")
    )


def _named(field: str) -> bool:
    return field.lower() not in _NO_NAMES
