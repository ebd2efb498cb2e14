"""Power and heat as Linux tells them under /sys.

``hardware.reader`` reads them each time. Invariant: heat is what the kernel's own trip points say of zones
that are a processor's. A machine without such is UNKNOWN, and so is the power of one that has neither battery
nor plug.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.hardware import Power, PowerSource, ThermalState
from autotuned.hardware.texts import read_text, whole_number

_PROCESSOR_ZONES = ("acpitz", "b0d4", "cpu", "soc", "tcpu")
"""Not ``x86_pkg_temp``: its trip points are only where a program of the system wishes to be told."""

_STATES_BY_TRIP = {
    "critical": ThermalState.CRITICAL,
    "hot": ThermalState.SERIOUS,
    "passive": ThermalState.FAIR,
}
"""``passive``: from here on the kernel slows what heats. Documentation/driver-api/thermal/sysfs-api.rst."""

_SEVERITY = (ThermalState.NOMINAL, ThermalState.FAIR, ThermalState.SERIOUS, ThermalState.CRITICAL)
_JUST_SECONDS = 60.0
_PLUGS = frozenset({"Mains", "USB"})
_PLUGGED_IN = frozenset({"Charging", "Full", "Not charging"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """One power supply, by the lines of its ``uevent``, without ``POWER_SUPPLY_``."""

    fields: Mapping[str, str]

    @property
    def is_battery(self) -> bool:
        """Whether it is a battery of the machine, not of its mouse."""
        return self.fields.get("TYPE") == "Battery" and self.fields.get("SCOPE") != "Device"

    @property
    def is_plugged_in(self) -> bool:
        """Whether it is a plug that gives power."""
        return self.fields.get("TYPE") in _PLUGS and self.fields.get("ONLINE") == "1"

    def number(self, name: str) -> int | None:
        """A field that is a number."""
        return whole_number(self.fields.get(name, ""))


def parse_supply(uevent: str) -> Supply:
    """A power supply of its ``uevent``. Documentation/ABI/testing/sysfs-class-power."""
    lines = (line.removeprefix("POWER_SUPPLY_").partition("=") for line in uevent.splitlines())
    return Supply(fields={key: value.strip() for key, equals, value in lines if equals})


def power_of(supplies: Iterable[Supply]) -> tuple[PowerSource, int | None]:
    """What feeds the machine, and how full its batteries are together, in percent."""
    read = tuple(supplies)
    batteries = [supply for supply in read if supply.is_battery]
    states = {battery.fields.get("STATUS", "") for battery in batteries}
    percent = _percent(batteries)
    if any(supply.is_plugged_in for supply in read):
        return PowerSource.MAINS, percent
    if "Discharging" in states:
        return PowerSource.BATTERY, percent
    return (PowerSource.MAINS if states & _PLUGGED_IN else PowerSource.UNKNOWN), percent


def state_of_zone(degrees: int, trips: Iterable[tuple[str, int]]) -> ThermalState:
    """How hot a zone is by its trip points, both in thousandths of a degree; UNKNOWN where it has none."""
    known = [(_STATES_BY_TRIP[kind], at) for kind, at in trips if kind in _STATES_BY_TRIP and at > 0]
    if not known:
        return ThermalState.UNKNOWN
    return worst(state for state, at in ((ThermalState.NOMINAL, 0), *known) if degrees >= at)


def worst(states: Iterable[ThermalState]) -> ThermalState:
    """The hottest; UNKNOWN where none is known."""
    known = [state for state in states if state in _SEVERITY]
    return max(known, key=_SEVERITY.index, default=ThermalState.UNKNOWN)


class PowerReader:
    """Reads power and heat; remembers how often the processor had been slowed by then.

    ``clock`` counts seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._throttled_count = 0
        self._counted_at = -math.inf

    def read(self) -> Power:
        """Power and heat now. A processor that was slowed since a reading just before is FAIR at least."""
        source, percent = power_of(
            parse_supply(read_text(supply / "uevent") or "")
            for supply in _folders(self._root / "sys/class/power_supply", "*")
        )
        states = [_read_zone(zone) for zone in _folders(self._root / "sys/class/thermal", "thermal_zone*")]
        if self._was_just_throttled():
            states.append(ThermalState.FAIR)
        return Power(source=source, battery_percent=percent, thermal=worst(states))

    def _was_just_throttled(self) -> bool:
        before, counted_at = self._throttled_count, self._counted_at
        self._throttled_count, self._counted_at = self._read_throttled(), self._clock()
        return self._throttled_count > before and self._counted_at - counted_at <= _JUST_SECONDS

    def _read_throttled(self) -> int:
        """Intel's counters of the package; the same for each core of one, so the largest will do."""
        counts = (
            whole_number(read_text(cpu / "thermal_throttle/package_throttle_count") or "")
            for cpu in _folders(self._root / "sys/devices/system/cpu", "cpu[0-9]*")
        )
        return max((count for count in counts if count is not None), default=0)


def _read_zone(zone: Path) -> ThermalState:
    kind = (read_text(zone / "type") or "").strip().lower()
    degrees = whole_number(read_text(zone / "temp") or "")
    if degrees is None or not kind.startswith(_PROCESSOR_ZONES):
        return ThermalState.UNKNOWN
    trips = []
    for path in _folders(zone, "trip_point_*_type"):
        at = whole_number(read_text(path.with_name(path.name.removesuffix("type") + "temp")) or "")
        trips.append(((read_text(path) or "").strip(), at or 0))
    return state_of_zone(degrees, trips)


def _percent(batteries: list[Supply]) -> int | None:
    """Of all of them by what they hold; their own figures where they do not tell that."""
    for unit in ("ENERGY", "CHARGE"):
        now = [battery.number(f"{unit}_NOW") for battery in batteries]
        full = [battery.number(f"{unit}_FULL") for battery in batteries]
        if batteries and None not in now and all(full):
            return min(100, round(100 * sum(filter(None, now)) / sum(filter(None, full))))
    told = [percent for battery in batteries if (percent := battery.number("CAPACITY")) is not None]
    return min(100, round(sum(told) / len(told))) if told else None


def _folders(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
