"""The report on the machine: what models may take of its memory, what fits, and what to close."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core.engine import EngineState
from autotuned.core.hardware import Application
from autotuned.core.plan import FitClass
from autotuned.policy.places import Place
from autotuned.storage.registry import packaged_models
from tests.examples import GEMMA3_12B, LLAMA_3_1_8B, QWEN3_8B, QWEN3_NEXT_80B
from tests.machines import MACHINES
from tests.services.pull_house import LAPTOP, ListedModels, PullHouse, RecordedProbe, Server, Surroundings
from tests.services.scripted import ENTRY, ScriptedEngine, entry

GIB = 1 << 30
BY_KEY = {machine.key: machine for machine in MACHINES}


def around(machine=LAPTOP, *programs, models=(), **memory):
    """A recorded machine; ``memory`` are other figures of its memory."""
    return Surroundings(
        probe=RecordedProbe(hardware=machine.hardware, programs=programs),
        memory=replace(machine.memory, **memory),
        registry=ListedModels(models=models),
    )


def program(name, gib, processes_count=1):
    return Application(name=name, processes_count=processes_count, memory_bytes=int(gib * GIB))


def having(*facts, engine="llamacpp"):
    """An engine with these models."""
    return ScriptedEngine(
        name=engine,
        entries=tuple(
            replace(entry(each.name, each), engine=engine, size_bytes=each.weights_bytes) for each in facts
        ),
    )


def with_accelerator(engine, accelerator):
    status = engine.status
    engine.status = lambda: replace(status(), accelerator=accelerator)
    return engine


def by_model(report):
    return {(fit.model_id, fit.engine): fit for fit in report.fits}


async def test_a_laptop_has_one_budget():
    async with PullHouse(surroundings=around()) as house:
        report = await house.reports.report()
    assert (report.hardware, report.reading) == (LAPTOP.hardware, LAPTOP.memory)
    (budget,) = report.budgets
    total = LAPTOP.memory.total_bytes
    assert (budget.place, budget.is_used) == (Place.RAM, True)
    assert budget.capacity_bytes == total - 2 * GIB - total // 16
    assert budget.available_bytes == LAPTOP.memory.available_bytes - (1536 << 20)
    assert budget.bandwidth == LAPTOP.hardware.memory_bandwidth
    assert (report.fits, report.closings) == ((), ())


async def test_memory_is_read_for_every_report():
    async with PullHouse(surroundings=around()) as house:
        before = await house.reports.report()
        house.machine.reading = replace(LAPTOP.memory, available_bytes=4 * GIB)
        after = await house.reports.report()
    assert before.reading == LAPTOP.memory
    assert after.reading.available_bytes == 4 * GIB
    assert after.budgets[0].available_bytes < before.budgets[0].available_bytes


@pytest.mark.parametrize(
    ("accelerator", "is_local", "is_used"),
    [("CPU", True, False), ("CUDA", True, True), ("", True, True), ("CUDA", False, False)],
)
async def test_a_gpu_counts_where_an_engine_of_this_machine_computes_on_it(accelerator, is_local, is_used):
    own = with_accelerator(ScriptedEngine(entries=()), "CPU")
    other = with_accelerator(Server(is_local=is_local), accelerator)
    async with PullHouse(other, own=own, surroundings=around(BY_KEY["rtx-4090-24"])) as house:
        room = await house.reports.room()
    gpu, ram = room.budgets
    assert (gpu.place, gpu.is_used) == (Place.GPU, is_used)
    assert (ram.place, ram.is_used) == (Place.RAM, True)
    assert ("gpu-unused" in [reason.code for reason in gpu.reasons]) is not is_used


async def test_a_server_that_nobody_has_seen_yet_is_looked_at():
    own = with_accelerator(ScriptedEngine(entries=()), "CPU")
    server = Server(state=EngineState.STARTING, found=EngineState.READY)
    away = Server(name="away", state=EngineState.STARTING, is_local=False)
    async with PullHouse(server, away, own=own, surroundings=around(BY_KEY["rtx-4090-24"])) as house:
        assert (await house.reports.room()).budgets[0].is_used
        await house.reports.room()
    assert (server.looks_count, away.looks_count) == (1, 0)


async def test_each_installed_model_has_its_fit_and_speed_where_it_runs():
    unsound = replace(ENTRY, id="damaged", facts=None, problem="it is cut off.")
    own = having(LLAMA_3_1_8B, GEMMA3_12B, QWEN3_NEXT_80B)
    own.entries += (unsound,)
    away = having(QWEN3_8B, engine="far")
    far = Server(name="far", entries=away.entries, is_local=False)
    memory = {"available_bytes": 8 * GIB, "swap_total_bytes": 0, "swap_free_bytes": 0}
    async with PullHouse(far, own=own, surroundings=around(LAPTOP, **memory)) as house:
        fits = by_model(await house.reports.report())
    assert fits.keys() == {
        *((each.name, "llamacpp") for each in (LLAMA_3_1_8B, GEMMA3_12B, QWEN3_NEXT_80B)),
        ("damaged", "llamacpp"),
        ("Qwen3 8B", "far"),
    }
    llama, gemma = fits[LLAMA_3_1_8B.name, "llamacpp"], fits[GEMMA3_12B.name, "llamacpp"]
    assert llama.fit.fit_class is FitClass.SAFE
    assert gemma.fit.fit_class is FitClass.OOM
    assert llama.fit.available_bytes == 8 * GIB
    # It would run where memory is read at 38.4 GB/s: 4.9 GB for each token.
    assert 4 < gemma.tokens_per_second < llama.tokens_per_second < 38.4e9 / LLAMA_3_1_8B.weights_bytes < 8
    assert fits[QWEN3_NEXT_80B.name, "llamacpp"].tokens_per_second == 0  # it fits nowhere
    assert (fits["damaged", "llamacpp"].fit, fits["Qwen3 8B", "far"].fit) == (None, None)


async def test_a_model_of_an_engine_that_leaves_the_gpu_alone_is_as_slow_as_the_processor():
    speeds = []
    for accelerator in ("CPU", "CUDA"):
        own = with_accelerator(having(LLAMA_3_1_8B), accelerator)
        async with PullHouse(Server(), own=own, surroundings=around(BY_KEY["rtx-4090-24"])) as house:
            (fit,) = (await house.reports.report()).fits
            speeds.append(fit.tokens_per_second)
    assert 0 < speeds[0] < speeds[1] / 5


async def test_what_the_registry_knows_of_a_mixture_makes_its_speed_known():
    model = next(
        each
        for each in packaged_models()
        if "ollama" in each.names and each.active_parameters_count * 4 < each.parameters_count
    )
    weights = {"weights_bytes": 5 * GIB, "weights_bytes_by_type": (("Q4_K", 5 * GIB),)}
    facts = replace(QWEN3_8B, name="mixture", architecture="qwen3moe", **weights)
    own = ScriptedEngine(entries=(replace(entry("mixture", facts), id=model.names["ollama"]),))
    speeds = []
    for known in ((), (model,)):
        async with PullHouse(own=own, surroundings=around(models=known)) as house:
            (fit,) = (await house.reports.report()).fits
            speeds.append(fit.tokens_per_second)
    assert speeds[0] == 0
    assert speeds[1] > 38.4e9 / facts.weights_bytes  # faster than if all of it were read


async def test_closing_a_program_makes_room_for_a_model():
    own = having(LLAMA_3_1_8B, GEMMA3_12B)
    programs = (program("mail", 0.5), program("browser", 3.5, 12))
    surroundings = around(LAPTOP, *programs, available_bytes=int(5.5 * GIB))
    async with PullHouse(own=own, surroundings=surroundings) as house:
        report = await house.reports.report()
    browser, mail = report.closings
    assert (browser.application, mail.application) == (programs[1], programs[0])
    assert (browser.enabled_models, mail.enabled_models) == ((LLAMA_3_1_8B.name,), ())


@pytest.mark.parametrize("gib", [0.25, 1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("key", ["laptop-16", "mac-m3-16", "laptop-64"])
async def test_what_closing_is_said_to_enable_fits_when_it_was_closed(key, gib):
    machine = BY_KEY[key]
    own = having(LLAMA_3_1_8B, GEMMA3_12B, QWEN3_8B)
    surroundings = around(machine, program("browser", gib), available_bytes=6 * GIB, swap_free_bytes=0)
    async with PullHouse(own=own, surroundings=surroundings) as house:
        before = await house.reports.report()
        house.machine.reading = replace(surroundings.memory, available_bytes=int((6 + gib) * GIB))
        after = await house.reports.report()

    def safe(report):
        return {fit.model_id for fit in report.fits if fit.fit.fit_class is FitClass.SAFE}

    assert set(before.closings[0].enabled_models) == safe(after) - safe(before)


async def test_what_a_mac_never_lets_its_gpu_take_no_closing_enables():
    machine = BY_KEY["mac-m3-16"]
    large = replace(
        GEMMA3_12B, weights_bytes=machine.memory.wired_limit_bytes - GIB // 2, weights_bytes_by_type=()
    )
    surroundings = around(machine, program("browser", 9), available_bytes=6 * GIB)
    async with PullHouse(own=having(large), surroundings=surroundings) as house:
        report = await house.reports.report()
    required_bytes = report.fits[0].fit.required_bytes
    assert machine.memory.wired_limit_bytes < required_bytes < 13 * GIB  # all that there would be then
    assert report.closings[0].enabled_models == ()


@pytest.mark.parametrize("machine", MACHINES, ids=[machine.key for machine in MACHINES])
async def test_every_recorded_machine_has_a_report(machine):
    async with PullHouse(own=having(LLAMA_3_1_8B), surroundings=around(machine)) as house:
        report = await house.reports.report()
    for budget in report.budgets:
        assert 0 <= budget.available_bytes <= budget.capacity_bytes <= machine.memory.total_bytes or (
            budget.place is Place.GPU
        )
        assert budget.reasons
    assert report.budgets[0].bandwidth.bytes_per_second >= report.budgets[-1].bandwidth.bytes_per_second
    assert report.fits[0].fit is not None
