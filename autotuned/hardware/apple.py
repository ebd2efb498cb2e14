"""A Mac: its chip, its power and its heat, as sysctl(8) and pmset(1) print them.

``hardware.reader`` asks on Darwin; what does not ``read`` is pure. Invariant: a variable that a version of
macOS does not have leaves its figure unknown.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from autotuned.core.hardware import Cpu, Gpu, GpuVendor, Hardware, Power, PowerSource, ThermalState
from autotuned.hardware.instruction_sets import MACOS_VARIABLES, named
from autotuned.hardware.specified import apple_bandwidth
from autotuned.hardware.texts import whole_number

_SYSCTL = ("/usr/sbin/sysctl", "hw", "machdep.cpu", "kern.osproductversion")
_BATTERY = ("/usr/bin/pmset", "-g", "batt")
_HEAT = ("/usr/bin/pmset", "-g", "therm")
_LONGEST_SECONDS = 2.0

_SOURCE = re.compile(r"drawing from '(AC|Battery|UPS) Power'")
_SOURCES = {"AC": PowerSource.MAINS, "UPS": PowerSource.BATTERY, "Battery": PowerSource.BATTERY}
_CHARGE = re.compile(r"InternalBattery.*?\s(\d{1,3})%", re.ASCII)
_SPEED_LIMIT = re.compile(r"CPU_Speed_Limit\s*=\s*(\d{1,3})", re.ASCII)
_WARNING = re.compile(r"Thermal Warning Level\s*(?:set to|[=:])\s*(\d{1,3})", re.ASCII | re.IGNORECASE)
_NO_WARNING = "No thermal warning level has been recorded"
_STATES_BY_WARNING = {
    0: ThermalState.NOMINAL,
    5: ThermalState.SERIOUS,
    10: ThermalState.CRITICAL,
    100: ThermalState.FAIR,
    110: ThermalState.CRITICAL,
}
"""Normal, danger, critical, warning and trap, of IOKit's IOPM.h."""

_FULL_SPEED_PERCENT = 100
_HALF_SPEED_PERCENT = 50


def parse_sysctl(text: str) -> dict[str, str]:
    """Values by name, of lines like ``hw.memsize: 17179869184``."""
    lines = (line.partition(": ") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in lines if colon}


def hardware_of(variables: Mapping[str, str]) -> Hardware:
    """The Mac without its power; bandwidth only where Apple's specification of the chip has it."""
    cpu = _cpu(variables)
    memory = _number(variables, "hw.memsize")
    bandwidth = apple_bandwidth(cpu.model, cpu.physical_cores_count, memory)
    gpu = Gpu(name=cpu.model, vendor=GpuVendor.APPLE, unified=True, bandwidth=bandwidth)
    return Hardware(
        system=f"macOS {variables.get('kern.osproductversion', '')}".rstrip(),
        model=variables.get("hw.model", ""),
        cpu=cpu,
        memory_bytes=memory,
        memory_bandwidth=bandwidth,
        gpus=(gpu,) if cpu.model.startswith("Apple ") else (),
    )


def parse_battery(text: str) -> tuple[PowerSource, int | None]:
    """What feeds the Mac and how full its battery is in percent, of ``pmset -g batt``."""
    source, charge = _SOURCE.search(text), _CHARGE.search(text)
    percent = min(100, int(charge[1])) if charge else None
    return (_SOURCES[source[1]] if source else PowerSource.UNKNOWN), percent


def parse_heat(text: str) -> ThermalState:
    """How far heat slows the Mac, of ``pmset -g therm``: the warning, and on Intel the limit of its speed."""
    limit, warning = _SPEED_LIMIT.search(text), _WARNING.search(text)
    if limit and int(limit[1]) < _FULL_SPEED_PERCENT:
        return ThermalState.FAIR if int(limit[1]) > _HALF_SPEED_PERCENT else ThermalState.SERIOUS
    if warning:
        return _STATES_BY_WARNING.get(int(warning[1]), ThermalState.UNKNOWN)
    return ThermalState.NOMINAL if limit or _NO_WARNING in text else ThermalState.UNKNOWN


def read_hardware() -> Hardware:
    """The Mac that this is, without its power."""
    return hardware_of(parse_sysctl(_output(_SYSCTL)))


def read_power() -> Power:
    """Its power and heat now; some 20 ms."""
    source, percent = parse_battery(_output(_BATTERY))
    return Power(source=source, battery_percent=percent, thermal=parse_heat(_output(_HEAT)))


def _cpu(variables: Mapping[str, str]) -> Cpu:
    has_kinds = _number(variables, "hw.perflevel1.physicalcpu") > 0
    present = {name for name, value in variables.items() if value == "1"}
    return Cpu(
        model=variables.get("machdep.cpu.brand_string", ""),
        architecture="arm64" if "hw.optional.arm64" in present else "x86_64",
        physical_cores_count=_number(variables, "hw.physicalcpu"),
        logical_cores_count=_number(variables, "hw.logicalcpu"),
        performance_cores_count=_number(variables, "hw.perflevel0.physicalcpu") if has_kinds else 0,
        instruction_sets=named(MACOS_VARIABLES, present),
    )


def _number(variables: Mapping[str, str], name: str) -> int:
    return whole_number(variables.get(name, "")) or 0


def _output(command: tuple[str, ...]) -> str:
    """What a program printed, a complaint about a variable that it does not know aside."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_LONGEST_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")
