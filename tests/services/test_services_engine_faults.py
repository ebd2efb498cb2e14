"""Engines that change, fail or are not there: what the others' models and the daemon's plans do then."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from autotuned.core.engine import EngineResident
from autotuned.core.errors import EngineUnreachable, ModelNotFound
from autotuned.core.generation import Finished, Started
from autotuned.core.settings import PrefixSettings
from autotuned.policy.remote import NOTHING, foreign_shape
from autotuned.services.prefixes import Prefixes
from tests.services.instant import ABLE, LATE, InstantEngine, Quarters, ask, entry


class BrokenEngine(InstantEngine):
    """One whose list and looks fail in a way that it does not know itself."""

    async def models(self):
        raise RecursionError("too deep")

    async def refresh(self):
        raise OverflowError("too large")

    async def residents(self):
        raise ValueError("no number")


def started(events):
    return next(event for event in events if isinstance(event, Started))


async def test_a_gpu_that_is_found_later_is_used_from_the_next_load_on():
    engine = InstantEngine("llamacpp", (entry("pocket", "llamacpp"),), able=replace(ABLE, has_gpu=False))
    async with Quarters(engine) as house:
        await house.answer(ask("pocket"))
        await house.models.unload("pocket")
        engine.able = replace(ABLE, has_gpu=True)
        await house.answer(ask("pocket"))
    assert [model.shape.gpu_layers_count > 0 for model in engine.loaded] == [False, True]


async def test_slots_that_are_told_later_are_used():
    engine = InstantEngine("lmstudio", (entry("pocket", "lmstudio"),), able=replace(LATE, slots_count=1))
    async with Quarters(engine) as house:
        await house.answer(ask("pocket"))
        await house.models.unload("pocket")
        engine.able = replace(LATE, slots_count=2)
        engine.may_end.clear()
        answers = [asyncio.create_task(house.answer(ask("pocket"))) for _ in range(2)]
        async with asyncio.timeout(5):
            while len(engine.requests) < 3:  # noqa: ASYNC110 - both are at work at the same time
                await asyncio.sleep(0)
        engine.may_end.set()
        assert all(isinstance(events[-1], Finished) for events in await asyncio.gather(*answers))


async def test_an_engine_that_fails_hides_no_model_of_another(caplog):
    good = InstantEngine("llamacpp", (entry("pocket", "llamacpp"),))
    async with Quarters(good, BrokenEngine("ollama")) as house:
        assert started(await house.answer(ask("pocket"))).engine == "llamacpp"
        assert [each.model.id for each in await house.models.listings()] == ["pocket"]
        assert [each.status.name for each in await house.reports.reports()] == ["llamacpp", "ollama"]
        assert await house.reports.foreign_models() == []
        await house.reports.findings()
        with pytest.raises(ModelNotFound):
            await house.answer(ask("ollama/pocket"))
    assert "too deep" in caplog.text


async def test_unloading_is_no_failure_where_another_engine_of_it_is_gone():
    class Gone(InstantEngine):
        async def unload_resident(self, model_id):
            raise EngineUnreachable("It is gone.", engine=self.name)

    first = InstantEngine("llamacpp", (entry("pocket", "llamacpp"),))
    second = Gone("lmstudio", (entry("pocket", "lmstudio"),))
    async with Quarters(first, second) as house:
        await house.answer(ask("llamacpp/pocket"))
        assert await house.models.unload("pocket") == (True, 0)
        second.held = (EngineResident(model_id="pocket"),)
        with pytest.raises(EngineUnreachable):
            await house.models.unload("pocket")


async def test_a_model_in_memory_is_found_at_once_though_an_engine_is_called_like_its_publisher():
    class Counting(InstantEngine):
        lists_count = 0

        async def models(self):
            self.lists_count += 1
            return self.entries

    first = Counting("lmstudio", (entry("lab/small", "lmstudio"),))
    second = Counting("lab", (entry("other", "lab", digest="remote:lab:other"),))
    async with Quarters(first, second, default="lab/small") as house:
        await house.answer(ask("lab/small"))
        before = second.lists_count
        assert started(await house.answer(ask("lab/small"))).engine == "lmstudio"
        assert second.lists_count == before


async def test_a_prompt_cache_of_a_server_is_promised_and_not_taken():
    footprint = replace(NOTHING, weights_bytes=100, host_prompt_cache_bytes=40)
    engine = InstantEngine("ollama", (entry("pocket", "ollama"),))
    async with Quarters(engine) as house:
        await house.answer(ask("pocket"))
        engine.loaded[0].footprint = footprint
        await house.residency.refresh()
        assert house.residency.freed_bytes("ollama/pocket") == 140
        assert house.residency.promised_bytes("ollama/pocket") == 40
        assert house.residency.view("another").reserved_bytes == 40


async def test_every_name_of_a_model_leads_to_what_was_kept_of_it_and_no_other():
    first = InstantEngine("llamacpp", (entry("x:latest", "llamacpp"),))
    second = InstantEngine("mlx", (entry("x:latest", "mlx", digest="b"),))
    async with Quarters(first, second) as house:
        assert await house.models.keys_of("x:latest") == ("x:latest",)
        assert await house.models.keys_of("x") == ("x:latest",)
        assert await house.models.keys_of("mlx/x:latest") == ("mlx/x:latest",)
        assert await house.models.keys_of("nobody") == ()
        prefixes = Prefixes(store=None, settings=PrefixSettings(), clock=None)
        loaded = await second.load(second.entries[0], foreign_shape(2048), None)
        kept = prefixes._incarnation(second.entries[0], loaded, "1")
        assert kept.model_id == "mlx/x:latest"
