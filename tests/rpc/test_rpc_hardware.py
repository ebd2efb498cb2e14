"""GetHardware over a socket, and how the machine, its budgets and what fits are written on the wire."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from autotune.v1 import hardware_pb2 as pb
from autotune.v1 import plan_pb2

from autotuned.core.hardware import (
    Application,
    Bandwidth,
    BandwidthSource,
    Cpu,
    Gpu,
    GpuVendor,
    Hardware,
    Power,
    PowerSource,
    ThermalState,
)
from autotuned.core.memory import MemoryReading
from autotuned.core.plan import Reason
from autotuned.policy.applications import Closing
from autotuned.policy.places import Place, PlaceBudget
from autotuned.rpc.hardware import budget_messages, hardware_message, hardware_response
from autotuned.services.hardware import HardwareReport, InstalledFit
from tests.examples import GEMMA3_12B
from tests.machines import MACHINES
from tests.rpc.served import served
from tests.services.pull_house import LAPTOP, RecordedProbe
from tests.services.scripted import ENTRY, ScriptedEngine, entry

GIB = 1 << 30
BARE = Hardware(
    system="",
    model="",
    cpu=Cpu(model="", architecture="arm64", physical_cores_count=0, logical_cores_count=0),
    memory_bytes=0,
)
NO_MEMORY = MemoryReading(total_bytes=0, available_bytes=0, swap_total_bytes=0, swap_free_bytes=0)
BUDGET = PlaceBudget(
    place=Place.RAM,
    name="RAM",
    capacity_bytes=2,
    available_bytes=1,
    bandwidth=Bandwidth(bytes_per_second=3, source=BandwidthSource.MEASURED),
    reasons=(Reason("system", "Why."),),
)


async def test_the_machine_its_memory_what_fits_and_what_to_close():
    programs = (Application(name="browser", processes_count=12, memory_bytes=6 * GIB),)
    damaged = replace(ENTRY, id="damaged", facts=None, problem="it is cut off.")
    engine = ScriptedEngine(entries=(entry("tiny"), entry("gemma", GEMMA3_12B), damaged))
    async with served(engine, probe=RecordedProbe(programs=programs)) as house:
        told = await house.client.hardware()
    machine = LAPTOP.hardware
    assert (told.hardware.system, told.hardware.model) == (machine.system, machine.model)
    assert told.hardware.cpu.model == machine.cpu.model
    assert list(told.hardware.cpu.instruction_sets) == list(machine.cpu.instruction_sets)
    assert told.hardware.memory_total_bytes == machine.memory_bytes
    assert told.hardware.memory_available_bytes == LAPTOP.memory.available_bytes
    assert [(budget.name, budget.is_used) for budget in told.budgets] == [("RAM", True)]
    fits = {model.model: model for model in told.models}
    assert fits.keys() == {"tiny", "gemma", "damaged"}
    assert fits["tiny"].fit.fit_class == plan_pb2.FIT_CLASS_SAFE
    assert fits["tiny"].estimated_tokens_per_second > fits["gemma"].estimated_tokens_per_second
    assert (fits["damaged"].engine, fits["damaged"].HasField("fit")) == ("llamacpp", False)
    (browser,) = told.applications
    assert (browser.name, browser.processes_count, browser.memory_bytes) == ("browser", 12, 6 * GIB)


@pytest.mark.parametrize("machine", MACHINES, ids=[machine.key for machine in MACHINES])
def test_every_recorded_machine_can_be_written(machine):
    told = hardware_message(machine.hardware, machine.memory)
    assert pb.Hardware.FromString(told.SerializeToString()) == told
    assert [gpu.name for gpu in told.gpus] == [gpu.name for gpu in machine.hardware.gpus]
    assert [gpu.vendor for gpu in told.gpus] == [gpu.vendor.value for gpu in machine.hardware.gpus]
    assert told.memory_bandwidth.bytes_per_second == machine.hardware.memory_bandwidth.bytes_per_second
    assert told.HasField("battery_percent") is (machine.hardware.power.battery_percent is not None)
    memory = machine.memory
    assert told.swap_used_bytes == memory.swap_total_bytes - memory.swap_free_bytes


def test_what_nobody_knows_is_empty_or_absent():
    assert hardware_message(BARE, NO_MEMORY) == pb.Hardware(
        cpu=pb.Cpu(architecture="arm64"), memory_bandwidth=pb.Bandwidth()
    )
    gpu = Gpu(name="X", vendor=GpuVendor.AMD)
    for free_bytes in (None, 0):
        (told,) = hardware_message(replace(BARE, gpus=(replace(gpu, free_bytes=free_bytes),)), NO_MEMORY).gpus
        assert told.HasField("memory_free_bytes") is (free_bytes is not None)


def test_an_empty_battery_and_a_limit_of_nothing_are_told():
    power = Power(source=PowerSource.BATTERY, battery_percent=0)
    told = hardware_message(replace(BARE, power=power), replace(NO_MEMORY, limit_bytes=0))
    assert (told.HasField("battery_percent"), told.HasField("memory_limit_bytes")) == (True, True)


def test_swap_that_shrank_between_two_looks_is_not_negative():
    memory = replace(NO_MEMORY, swap_total_bytes=1, swap_free_bytes=2)
    assert hardware_message(BARE, memory).swap_used_bytes == 0


@pytest.mark.parametrize("state", [*PowerSource, *ThermalState, *BandwidthSource, *Place])
def test_every_state_has_its_name_on_the_wire(state):
    bandwidth = Bandwidth(source=state if isinstance(state, BandwidthSource) else BandwidthSource.UNKNOWN)
    power = Power(
        source=state if isinstance(state, PowerSource) else PowerSource.UNKNOWN,
        thermal=state if isinstance(state, ThermalState) else ThermalState.UNKNOWN,
    )
    machine = hardware_message(replace(BARE, power=power, memory_bandwidth=bandwidth), NO_MEMORY)
    place = state if isinstance(state, Place) else Place.RAM
    (budget,) = budget_messages([replace(BUDGET, place=place)])
    names = {
        PowerSource: pb.PowerSource.Name(machine.power_source).removeprefix("POWER_SOURCE_"),
        ThermalState: pb.ThermalState.Name(machine.thermal_state).removeprefix("THERMAL_STATE_"),
        BandwidthSource: pb.BandwidthSource.Name(machine.memory_bandwidth.source).removeprefix(
            "BANDWIDTH_SOURCE_"
        ),
        Place: pb.MemoryPlace.Name(budget.place).removeprefix("MEMORY_PLACE_"),
    }
    assert names[type(state)].replace("UNSPECIFIED", "UNKNOWN") == state.name


def test_a_budget_keeps_all_of_its_figures():
    (told,) = budget_messages([BUDGET])
    assert (told.name, told.capacity_bytes, told.available_bytes, told.is_used) == ("RAM", 2, 1, True)
    assert (told.bandwidth.bytes_per_second, told.bandwidth.source) == (3, pb.BANDWIDTH_SOURCE_MEASURED)
    assert [(reason.code, reason.text) for reason in told.reasons] == [("system", "Why.")]


def test_a_whole_report_keeps_its_order():
    closing = Closing(
        application=Application(name="browser", processes_count=2, memory_bytes=9), enabled_models=("b", "a")
    )
    report = HardwareReport(
        hardware=BARE,
        reading=NO_MEMORY,
        budgets=(BUDGET, replace(BUDGET, name="other", is_used=False)),
        fits=(
            InstalledFit(model_id="b", engine="ollama", fit=None, tokens_per_second=1.5),
            InstalledFit(model_id="a", engine="llamacpp", fit=None),
        ),
        closings=(closing, replace(closing, enabled_models=())),
    )
    told = hardware_response(report)
    assert len(told.DESCRIPTOR.fields) == len(fields(HardwareReport)) - 1  # the reading is the machine's
    assert [budget.name for budget in told.budgets] == ["RAM", "other"]
    assert [(each.model, each.engine) for each in told.models] == [("b", "ollama"), ("a", "llamacpp")]
    assert [each.estimated_tokens_per_second for each in told.models] == [1.5, 0.0]
    assert [list(each.enabled_models) for each in told.applications] == [["b", "a"], []]
