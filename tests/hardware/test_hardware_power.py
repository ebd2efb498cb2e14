"""Power and heat on Linux: batteries of all kinds, plugs, zones and counters."""

from __future__ import annotations

import pytest

from autotuned.core.hardware import Power, PowerSource, ThermalState
from autotuned.hardware.power import PowerReader, parse_supply, power_of, state_of_zone, worst
from tests import recorded_pcs as pcs

MOUSE = """\
POWER_SUPPLY_NAME=hidpp_battery_0
POWER_SUPPLY_TYPE=Battery
POWER_SUPPLY_SCOPE=Device
POWER_SUPPLY_STATUS=Discharging
POWER_SUPPLY_CAPACITY=15
"""
# A ThinkPad with a battery inside and one outside; the one outside is used up first.
INSIDE = "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS=Unknown\nPOWER_SUPPLY_ENERGY_FULL=24000000\nPOWER_SUPPLY_ENERGY_NOW=24000000\n"
OUTSIDE = "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS=Discharging\nPOWER_SUPPLY_ENERGY_FULL=72000000\nPOWER_SUPPLY_ENERGY_NOW=12000000\n"
# A Surface tells of charge, not of energy.
CHARGE = "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS=Full\nPOWER_SUPPLY_CHARGE_FULL=5000\nPOWER_SUPPLY_CHARGE_NOW=5100\n"
PERCENT_ALONE = "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_STATUS=Charging\nPOWER_SUPPLY_CAPACITY=47\n"
USB_PLUG = "POWER_SUPPLY_TYPE=USB\nPOWER_SUPPLY_ONLINE=1\n"
EMPTY_BAY = "POWER_SUPPLY_TYPE=Battery\nPOWER_SUPPLY_PRESENT=0\nPOWER_SUPPLY_ENERGY_FULL=0\n"


@pytest.mark.parametrize(
    ("supplies", "source", "percent"),
    [
        ([], PowerSource.UNKNOWN, None),
        ([MOUSE], PowerSource.UNKNOWN, None),
        ([INSIDE, OUTSIDE], PowerSource.BATTERY, 38),
        ([INSIDE, OUTSIDE, USB_PLUG], PowerSource.MAINS, 38),
        ([CHARGE], PowerSource.MAINS, 100),
        ([PERCENT_ALONE, MOUSE], PowerSource.MAINS, 47),
        ([EMPTY_BAY], PowerSource.UNKNOWN, None),
        (["", "\0=\n=", "POWER_SUPPLY_TYPE=UPS\n"], PowerSource.UNKNOWN, None),
    ],
)
def test_what_feeds_the_machine(supplies, source, percent):
    assert power_of(parse_supply(text) for text in supplies) == (source, percent)


def test_a_laptop_without_and_with_its_plug(make_machine):
    root = make_machine(pcs.BATTERY)
    reader = PowerReader(root)
    assert reader.read() == Power(source=PowerSource.BATTERY, battery_percent=62)
    make_machine(pcs.PLUGGED_IN)
    assert reader.read() == Power(source=PowerSource.MAINS, battery_percent=62)


def zone(number: int, kind: str, degrees: int, **trips: int) -> dict[str, str]:
    folder = f"sys/class/thermal/thermal_zone{number}"
    files = {f"{folder}/type": f"{kind}\n", f"{folder}/temp": f"{degrees}\n"}
    for index, (trip, at) in enumerate(trips.items()):
        files[f"{folder}/trip_point_{index}_type"] = f"{trip}\n"
        files[f"{folder}/trip_point_{index}_temp"] = f"{at}\n"
    return files


@pytest.mark.parametrize(
    ("degrees", "state"),
    [
        (45_000, ThermalState.NOMINAL),
        (94_999, ThermalState.NOMINAL),
        (95_000, ThermalState.FAIR),
        (100_000, ThermalState.SERIOUS),
        (106_000, ThermalState.CRITICAL),
    ],
)
def test_heat_by_the_trip_points_of_the_processor(make_machine, degrees, state):
    trips = {"critical": 105_000, "hot": 99_000, "passive": 95_000, "active": 40_000}
    assert PowerReader(make_machine(zone(0, "acpitz", degrees, **trips))).read().thermal is state


def test_the_hottest_zone_counts(make_machine):
    files = {
        **zone(0, "cpu0-thermal", 70_000, passive=85_000, critical=115_000),
        **zone(1, "cpu1-thermal", 86_000, passive=85_000, critical=115_000),
    }
    assert PowerReader(make_machine(files)).read().thermal is ThermalState.FAIR


@pytest.mark.parametrize(
    "files",
    [
        {},
        zone(0, "iwlwifi_1", 60_000, passive=50_000),
        zone(0, "x86_pkg_temp", 60_000, passive=50_000),  # a threshold of thermald
        zone(0, "acpitz", 60_000),
        zone(0, "acpitz", 60_000, active=50_000),
        zone(0, "acpitz", 60_000, passive=-274_000),
        zone(0, "acpitz", -5, passive=50_000),
    ],
)
def test_what_says_nothing_of_the_processors_heat(make_machine, files):
    assert PowerReader(make_machine(files)).read().thermal is ThermalState.UNKNOWN


def test_a_processor_that_was_slowed_since_the_last_reading(make_machine):
    def counters(count: int) -> dict[str, str]:
        folder = "sys/devices/system/cpu"
        return {
            f"{folder}/cpu{number}/thermal_throttle/package_throttle_count": f"{count}\n" for number in (0, 1)
        }

    files = {**counters(812), **zone(0, "acpitz", 40_000, critical=105_000)}
    now = [1000.0]
    reader = PowerReader(make_machine(files), lambda: now[0])
    assert reader.read().thermal is ThermalState.NOMINAL  # it has been slowed before, not now
    now[0] += 20
    make_machine(counters(820))
    assert reader.read().thermal is ThermalState.FAIR
    assert reader.read().thermal is ThermalState.NOMINAL
    now[0] += 3600
    make_machine(counters(900))
    assert reader.read().thermal is ThermalState.NOMINAL  # it may have been an hour ago


def test_states_in_their_order():
    assert worst([ThermalState.UNKNOWN, ThermalState.FAIR, ThermalState.NOMINAL]) is ThermalState.FAIR
    assert worst([]) is ThermalState.UNKNOWN
    assert state_of_zone(50_000, [("passive", 0), ("strange", 10)]) is ThermalState.UNKNOWN
