"""Recommendations of the daemon: the registry and what is installed, held against the memory of now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core.memory import MemoryReading
from autotuned.policy.use_cases import UseCase
from autotuned.storage.registry import packaged_models
from tests.machines import MACHINES
from tests.services.pull_house import LAPTOP, ListedModels, PullHouse, RecordedProbe, Server, Surroundings
from tests.services.scripted import ScriptedEngine, entry

BY_KEY = {machine.key: machine for machine in MACHINES}
PACKAGED = packaged_models()


def around(key="laptop-16", models=PACKAGED):
    machine = BY_KEY[key]
    return Surroundings(
        probe=RecordedProbe(hardware=machine.hardware), memory=machine.memory, registry=ListedModels(models)
    )


async def advice(key="laptop-16", use_case=UseCase.CHAT, *others, own=None):
    async with PullHouse(*others, own=own, surroundings=around(key)) as house:
        return await house.recommender.recommend(use_case)


@pytest.mark.parametrize("use_case", UseCase)
async def test_three_models_that_fit_with_the_budgets_they_were_held_against(use_case):
    found = await advice(use_case=use_case)
    picks = found.recommendations.picks
    assert len(picks) == 3
    assert len({pick.model.id for pick in picks}) == 3
    assert picks[0].score == max(pick.score for pick in picks)
    for pick in picks:
        assert pick.budget in found.budgets
        assert pick.footprint.total_bytes <= pick.budget.capacity_bytes
        assert pick.pull_name
        assert pick.reasons
        assert not pick.installed_as


async def test_the_gpu_is_reckoned_with_where_an_engine_computes_on_it():
    own = ScriptedEngine(entries=())
    status = own.status
    own.status = lambda: replace(status(), accelerator="CPU")
    idle = await advice("rtx-4090-24", own=own)
    used = await advice("rtx-4090-24", UseCase.CHAT, Server(), own=own)
    places = [found.recommendations.picks[0].budget.place.value for found in (idle, used)]
    assert places == ["RAM", "GPU"]
    assert [budget.name for budget in idle.budgets] == [budget.name for budget in used.budgets]
    assert used.recommendations.picks[0].tokens_per_second > idle.recommendations.picks[0].tokens_per_second


@pytest.mark.parametrize(("accelerator", "places"), [("CPU", {"RAM"}), ("CUDA", {"GPU"})])
async def test_files_of_hugging_face_run_where_llama_cpp_computes(accelerator, places):
    own = ScriptedEngine(entries=())
    status = own.status
    own.status = lambda: replace(status(), accelerator=accelerator)
    files = tuple(
        replace(model, sizes=sizes)
        for model in PACKAGED
        if (sizes := tuple(size for size in model.sizes if size.of == "huggingface"))
    )
    async with PullHouse(Server(), own=own, surroundings=around("rtx-4090-24", files)) as house:
        found = await house.recommender.recommend(UseCase.CHAT)
    assert {pick.budget.place.value for pick in found.recommendations.picks} == places


async def test_what_is_installed_is_told_by_its_name():
    best = next(
        pick
        for pick in (await advice()).recommendations.picks
        if pick.pull_name == pick.model.names.get("ollama")
    )
    own = ScriptedEngine(entries=(replace(entry("here"), id=best.pull_name),))
    picks = (await advice(own=own)).recommendations.picks
    assert {pick.pull_name: pick.installed_as for pick in picks}[best.pull_name] == best.pull_name
    again = next(pick for pick in picks if pick.pull_name == best.pull_name)
    assert again.score > best.score
    assert sum(bool(pick.installed_as) for pick in picks) == 1


async def test_where_nothing_fits_there_is_no_pick():
    tiny = MemoryReading(total_bytes=1 << 30, available_bytes=1 << 29, swap_total_bytes=0, swap_free_bytes=0)
    async with PullHouse(surroundings=replace(around(), memory=tiny)) as house:
        found = await house.recommender.recommend(UseCase.CHAT)
    assert found.recommendations.picks == ()
    async with PullHouse(surroundings=around(models=())) as house:
        found = await house.recommender.recommend(UseCase.CHAT)
    assert found.recommendations.picks == ()
    assert found.budgets


async def test_the_registry_is_read_for_each_question():
    async with PullHouse(surroundings=around(models=PACKAGED[:1])) as house:
        listed = house.surroundings.registry
        assert (await house.recommender.registry()).models == PACKAGED[:1]
        listed.models, listed.problems = PACKAGED[1:2], ("models.toml is no TOML.",)
        registry = await house.recommender.registry()
        assert (registry.models, registry.problems) == (PACKAGED[1:2], ("models.toml is no TOML.",))
        assert house.recommender.own_file == "/data/models.toml"


async def test_what_other_programs_take_now_changes_no_pick():
    """Advice on what to download is for every day, not for the hour."""
    async with PullHouse(surroundings=around()) as house:
        before = await house.recommender.recommend(UseCase.CHAT)
        house.machine.reading = replace(LAPTOP.memory, available_bytes=2 << 30)
        after = await house.recommender.recommend(UseCase.CHAT)
    names = [[pick.pull_name for pick in found.recommendations.picks] for found in (before, after)]
    assert names[0] == names[1]
    assert after.budgets[0].available_bytes < before.budgets[0].available_bytes
