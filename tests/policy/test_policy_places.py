"""What models may take of RAM, of memory shared with a GPU, and of a GPU's own."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from autotuned.core.engine import EngineState, EngineStatus
from autotuned.core.hardware import Bandwidth, Cpu, Gpu, GpuVendor, Hardware
from autotuned.core.memory import MemoryReading, MemoryView, PressureTier, Resident
from autotuned.policy.places import Place, computes_on_gpu, not_now, place_budgets, places_of
from tests.policy.invented import GIB, budget
from tests.strategies import memory_views

CPU = Cpu(model="", architecture="x86_64", physical_cores_count=8, logical_cores_count=16)
READING = MemoryReading(total_bytes=32 * GIB, available_bytes=20 * GIB, swap_total_bytes=0, swap_free_bytes=0)
RTX = Gpu(
    name="RTX",
    vendor=GpuVendor.NVIDIA,
    memory_bytes=24 * GIB,
    free_bytes=23 * GIB,
    bandwidth=Bandwidth(bytes_per_second=900 * 10**9),
)
M4 = Gpu(name="M4", vendor=GpuVendor.APPLE, unified=True, bandwidth=Bandwidth(bytes_per_second=120 * 10**9))


def machine(*gpus, gigabytes_per_second=50):
    return Hardware(
        system="",
        model="",
        cpu=CPU,
        memory_bytes=32 * GIB,
        memory_bandwidth=Bandwidth(bytes_per_second=gigabytes_per_second * 10**9),
        gpus=gpus,
    )


def view(reading=READING, **changes):
    return MemoryView(reading=reading, pressure=PressureTier.NORMAL, **changes)


def budgets_of(*gpus, memory=None, margin_bytes=GIB, uses_gpu=True):
    return place_budgets(machine(*gpus), memory or view(), margin_bytes=margin_bytes, uses_gpu=uses_gpu)


def codes(budget):
    return [reason.code for reason in budget.reasons]


def test_the_system_has_its_share_of_the_memory_whatever_is_free():
    (ram,) = budgets_of()
    assert (ram.place, ram.name, ram.is_used) == (Place.RAM, "RAM", True)
    assert ram.capacity_bytes == 28 * GIB
    assert ram.available_bytes == 19 * GIB
    assert ram.bandwidth.bytes_per_second == 50 * 10**9
    (reason,) = ram.reasons
    assert reason.text == "32.0 GiB, less 4.0 GiB for the system and for programs that are always open."


def test_a_control_group_is_the_models_but_for_the_margin():
    (ram,) = budgets_of(memory=view(replace(READING, limit_bytes=32 * GIB)))
    assert ram.capacity_bytes == 31 * GIB
    assert ram.reasons[0].text == "32.0 GiB is the limit of the control group; 1.0 GiB stay free."


def test_the_margin_is_at_most_a_sixth_of_the_memory():
    reading = replace(READING, total_bytes=3 * GIB, available_bytes=2 * GIB, limit_bytes=3 * GIB)
    (ram,) = budgets_of(memory=view(reading), margin_bytes=2 * GIB)
    assert (ram.capacity_bytes, ram.available_bytes) == (5 * GIB // 2, 3 * GIB // 2)


def test_idle_models_make_room_and_loads_under_way_take_it():
    idle = Resident(model_id="idle", freed_bytes=4 * GIB, is_busy=False, last_used_at=0)
    busy = Resident(model_id="busy", freed_bytes=8 * GIB, is_busy=True, last_used_at=0)
    (ram,) = budgets_of(memory=view(residents=(idle, busy), reserved_bytes=2 * GIB))
    assert ram.available_bytes == (20 + 4 - 2 - 1) * GIB


def test_a_mac_shares_its_memory_as_far_as_macos_lets_its_gpu():
    (mac,) = budgets_of(M4, memory=view(replace(READING, wired_limit_bytes=21 * GIB)))
    assert (mac.place, mac.name) == (Place.UNIFIED, "unified memory")
    assert mac.capacity_bytes == 21 * GIB
    assert mac.bandwidth == M4.bandwidth
    (reason,) = mac.reasons
    assert reason.text == "macOS lets its GPU take 21.0 GiB of 32.0 GiB."


def test_a_raised_wired_limit_does_not_take_the_systems_share():
    (mac,) = budgets_of(M4, memory=view(replace(READING, wired_limit_bytes=31 * GIB)))
    assert mac.capacity_bytes == 28 * GIB
    assert codes(mac) == ["system"]


def test_a_mac_whose_engines_use_the_processor_still_has_memory_for_models():
    (ram,) = budgets_of(M4, uses_gpu=False)
    assert (ram.place, ram.is_used) == (Place.RAM, True)
    assert ram.bandwidth.bytes_per_second == 50 * 10**9
    assert codes(ram) == ["system", "gpu-unused"]


def test_integrated_graphics_read_no_faster_than_the_processor():
    radeon = Gpu(
        name="Radeon", vendor=GpuVendor.AMD, unified=True, bandwidth=Bandwidth(bytes_per_second=1 << 40)
    )
    (ram,) = budgets_of(radeon)
    assert (ram.place, ram.bandwidth.bytes_per_second) == (Place.RAM, 50 * 10**9)


def test_a_gpu_comes_before_the_ram():
    gpu, ram = budgets_of(RTX)
    assert (gpu.place, gpu.name, ram.place) == (Place.GPU, "RTX", Place.RAM)
    assert gpu.capacity_bytes == 24 * GIB - (512 << 20) - 24 * GIB // 25
    assert gpu.available_bytes == min(23 * GIB - (512 << 20), gpu.capacity_bytes)
    assert gpu.reasons[0].text == "24.0 GiB, less 1.5 GiB for the driver and the display."


def test_a_busy_gpu_has_less_now():
    gpu, _ = budgets_of(replace(RTX, free_bytes=4 * GIB))
    assert gpu.available_bytes == 4 * GIB - (512 << 20)


def test_where_nobody_tells_what_is_free_all_of_it_may_be():
    gpu, _ = budgets_of(replace(RTX, free_bytes=None))
    assert gpu.available_bytes == gpu.capacity_bytes


def test_two_gpus_of_a_kind_are_one_memory():
    gpu, _ = budgets_of(RTX, RTX)
    assert gpu.name == "2 x RTX"
    assert gpu.capacity_bytes == 2 * budgets_of(RTX)[0].capacity_bytes


def test_of_different_gpus_each_takes_the_time_of_its_layers():
    slow = replace(RTX, name="GTX", bandwidth=Bandwidth(bytes_per_second=100 * 10**9))
    gpu, _ = budgets_of(RTX, slow)
    assert gpu.name == "RTX + GTX"
    assert gpu.bandwidth.bytes_per_second == 180 * 10**9  # half of the bytes at 900, half at 100
    small = replace(slow, memory_bytes=2 * GIB, free_bytes=2 * GIB)
    assert budgets_of(RTX, small)[0].bandwidth.bytes_per_second == pytest.approx(557e9, rel=0.01)
    assert budgets_of(RTX, RTX)[0].bandwidth == RTX.bandwidth
    assert budgets_of(RTX, replace(slow, bandwidth=Bandwidth()))[0].bandwidth == Bandwidth()


def test_different_gpus_are_named_with_how_many_of_each_there_are():
    gpu, _ = budgets_of(RTX, replace(RTX, name="GTX"), RTX)
    assert gpu.name == "2 x RTX + GTX"


def test_what_firmware_set_aside_for_models_is_memory_of_the_integrated_gpu():
    radeon = Gpu(name="Radeon", vendor=GpuVendor.AMD, unified=True, memory_bytes=96 * GIB)
    gpu, ram = budgets_of(radeon)
    assert (gpu.place, gpu.name, ram.place) == (Place.GPU, "Radeon", Place.RAM)
    assert gpu.capacity_bytes == 96 * GIB - (512 << 20) - 96 * GIB // 25
    usual = replace(radeon, memory_bytes=4 * GIB)
    assert [each.place for each in budgets_of(usual)] == [Place.RAM]


@pytest.mark.parametrize(
    ("place", "advice"),
    [
        (Place.RAM, '"autotunectl hardware" tells which applications to close.'),
        (Place.UNIFIED, '"autotunectl hardware" tells which applications to close.'),
        (Place.GPU, "unload models from the GPU, or close programs that use it."),
    ],
)
def test_how_to_make_room_depends_on_the_kind_of_memory(place, advice):
    assert not_now(budget(24, place, available_gib=3)).text == f"Now only 3.0 GiB can be had; {advice}"


def test_gpus_of_two_makers_are_two_memories_the_faster_first():
    arc = replace(RTX, name="Arc", vendor=GpuVendor.INTEL, bandwidth=Bandwidth(bytes_per_second=10**12))
    assert [each.name for each in budgets_of(RTX, arc)] == ["Arc", "RTX", "RAM"]


def test_a_gpu_that_no_engine_uses_is_told_with_what_would_change_that():
    gpu, ram = budgets_of(RTX, uses_gpu=False)
    assert (gpu.is_used, ram.is_used) == (False, True)
    assert gpu.reasons[-1].text == (
        "No engine that is ready computes on the GPU; start Ollama, or set llamacpp.server to a build of "
        "llama.cpp that does."
    )


@pytest.mark.parametrize(
    ("state", "accelerator", "expected"),
    [
        (EngineState.READY, "CUDA", True),
        (EngineState.READY, "", True),
        (EngineState.READY, "CPU", False),
        (EngineState.UNREACHABLE, "CUDA", False),
    ],
)
def test_an_engine_uses_the_gpu_when_it_is_ready_and_does_not_say_cpu(state, accelerator, expected):
    other = EngineStatus(name="other", state=EngineState.READY, accelerator="CPU")
    engine = EngineStatus(name="engine", state=state, accelerator=accelerator)
    assert computes_on_gpu([other, engine]) is expected


@pytest.mark.parametrize(("accelerator", "names"), [("CUDA", ["RTX", "RAM"]), ("CPU", ["RAM"])])
def test_an_engine_has_the_memory_that_it_computes_in(accelerator, names):
    engine = EngineStatus(name="engine", state=EngineState.READY, accelerator=accelerator)
    assert [each.name for each in places_of(budgets_of(RTX), engine)] == names


gpus = st.builds(
    Gpu,
    name=st.sampled_from(["A", "B"]),
    vendor=st.sampled_from(GpuVendor),
    unified=st.booleans(),
    memory_bytes=st.integers(0, 96 * GIB),
    free_bytes=st.one_of(st.none(), st.integers(0, 96 * GIB)),
    bandwidth=st.builds(Bandwidth, bytes_per_second=st.integers(0, 10**12)),
)


@given(st.lists(gpus, max_size=4), memory_views(), st.integers(0, 8 * GIB), st.booleans())
def test_budgets_are_ordered_have_reasons_and_never_more_now_than_ever(found, memory, margin, uses_gpu):
    budgets = budgets_of(*found, memory=memory, margin_bytes=margin, uses_gpu=uses_gpu)
    assert any(budget.is_used for budget in budgets)
    assert [budget.place is Place.GPU for budget in budgets] == [True] * (len(budgets) - 1) + [False]
    speeds = [budget.bandwidth.bytes_per_second for budget in budgets[:-1]]
    assert speeds == sorted(speeds, reverse=True)
    for each in budgets:
        assert 0 <= each.available_bytes <= each.capacity_bytes
        assert each.reasons
