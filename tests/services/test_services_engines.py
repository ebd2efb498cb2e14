"""Several engines: who runs what, what is told of it, and what happens where one is not there."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from autotuned.core.chat import Sampling, Tool
from autotuned.core.engine import EngineResident, EngineState
from autotuned.core.errors import EngineUnreachable, FieldInvalid, ModelNotFound, Unsupported
from autotuned.core.generation import Finished, FinishReason, Started
from autotuned.core.model import ModelState
from tests.services.instant import ABLE, LATE, InstantEngine, Quarters, ask, entry

TOOLS = (Tool("f", "", ""),)


def two():
    """An engine and another one that have the same model."""
    first = InstantEngine("llamacpp", (entry("pocket", "llamacpp"),))
    second = InstantEngine("ollama", (entry("pocket", "ollama"), entry("own", "ollama", digest="b")))
    return first, second


def started(events):
    return next(event for event in events if isinstance(event, Started))


def engine_reasons(events):
    return [reason.text for reason in started(events).plan.reasons if reason.code.startswith("engine")]


async def test_the_first_engine_runs_what_both_could_and_says_why():
    async with Quarters(*two()) as house:
        events = await house.answer(ask("pocket"))
    assert started(events).engine == "llamacpp"
    assert engine_reasons(events) == [
        "llamacpp runs it: it comes first of those that are as fast here.",
    ]


@pytest.mark.parametrize("request_", [ask("pocket", engine="ollama"), ask("ollama/pocket")])
async def test_an_engine_can_be_named(request_):
    async with Quarters(*two()) as house:
        events = await house.answer(request_)
        assert started(events).engine == "ollama"
        assert started(events).model == "pocket"
        assert engine_reasons(events) == ["ollama runs it: the request names it."]
    assert [record.engine for record in house.records.all] == ["ollama"]


async def test_a_model_stays_where_it_is_in_memory():
    async with Quarters(*two()) as house:
        await house.answer(ask("ollama/pocket"))
        events = await house.answer(ask("pocket"))
        assert started(events).engine == "ollama"
        assert house.engines[0].loaded == []


async def test_a_request_goes_to_an_engine_that_can_do_it():
    first, second = two()
    first.able = replace(ABLE, tools=False)
    async with Quarters(first, second) as house:
        await house.answer(ask("pocket"))
        chat = replace(ask("pocket").input, tools=TOOLS)
        events = await house.answer(ask("pocket", input=chat))
        assert started(events).engine == "ollama"
        assert (len(first.loaded), len(second.loaded)) == (1, 1)
        plain = await house.answer(ask("pocket"))
        assert started(plain).engine == "llamacpp"


async def test_what_no_engine_can_do_is_refused_by_name():
    first, second = two()
    first.able = second.able = replace(ABLE, sampling=frozenset({"temperature"}))
    async with Quarters(first, second) as house:
        with pytest.raises(Unsupported, match=r"min_p is not supported; leave it out \(engine llamacpp\)"):
            await house.answer(ask("pocket", sampling=Sampling(min_p=0.1)))


async def test_a_default_that_the_engine_does_not_honour_is_not_sent():
    first, _ = two()
    first.able = replace(ABLE, sampling=frozenset())
    async with Quarters(first) as house:
        await house.answer(ask("pocket"))
    assert first.requests[0].sampling.temperature is None


async def test_the_engine_that_is_configured_is_taken():
    async with Quarters(*two(), prefer="ollama") as house:
        assert started(await house.answer(ask("pocket"))).engine == "ollama"


async def test_an_engine_that_does_not_exist_is_named():
    async with Quarters(*two()) as house:
        with pytest.raises(FieldInvalid, match='there is no engine "x"; use one of: llamacpp, ollama'):
            await house.answer(ask("pocket", engine="x"))


async def test_an_engine_that_is_not_there_says_why():
    first, second = two()
    second.state, second.detail = EngineState.UNREACHABLE, "nothing answers at 127.0.0.1:11434"
    async with Quarters(first, second) as house:
        with pytest.raises(
            EngineUnreachable, match=r"ollama cannot be used: nothing answers at 127\.0\.0\.1"
        ):
            await house.answer(ask("ollama/pocket"))
        with pytest.raises(ModelNotFound, match="Models of ollama are missing, because it does not answer"):
            await house.answer(ask("own"))
        assert started(await house.answer(ask("pocket"))).engine == "llamacpp"


async def test_a_model_that_a_named_engine_lacks_is_not_found():
    async with Quarters(*two()) as house:
        with pytest.raises(ModelNotFound, match='llamacpp has no model "own"; it runs on ollama'):
            await house.answer(ask("llamacpp/own"))
        with pytest.raises(ModelNotFound, match='llamacpp has no model "pocke"; did you mean "pocket"'):
            await house.answer(ask("llamacpp/pocke"))
        with pytest.raises(
            ModelNotFound, match='ollama has no model "zzz"; "autotunectl ls --engine ollama"'
        ):
            await house.answer(ask("ollama/zzz"))


@pytest.mark.parametrize("state", [EngineState.NOT_INSTALLED, EngineState.OFF])
async def test_an_engine_that_is_nothing_to_mend_is_not_for_the_doctor(state):
    first, second = two()
    second.state, second.detail = state, "there is no such program"
    async with Quarters(first, second) as house:
        with pytest.raises(EngineUnreachable, match="no such program; take another one"):
            await house.answer(ask("ollama/pocket"))


async def test_a_name_with_an_engine_is_the_one_that_the_engine_has():
    """Two names of one file, as Ollama makes them: the first one listed is not what was asked for."""
    first, second = two()
    second.entries = (entry("team", "ollama"), entry("pocket:latest", "ollama"), entry("own", "ollama"))
    async with Quarters(first, second) as house:
        for name in ("pocket:latest", "team", "own"):
            assert (await house.models.routed(f"ollama/{name}")).actor.entry.id == name
        assert (await house.models.routed("ollama/pocket")).actor.entry.id == "pocket:latest"
        await house.answer(ask("ollama/pocket"))
        await house.answer(ask("ollama/pocket"))
        assert len(second.loaded) == 1


async def test_a_preference_for_an_engine_that_is_not_there_is_a_finding():
    async with Quarters(*two(), prefer="olama") as house:
        assert [each.code for each in await house.reports.findings()] == ["preferred-engine-missing"]


async def test_unloading_frees_it_wherever_it_is():
    async with Quarters(*two()) as house:
        await house.answer(ask("llamacpp/pocket"))
        await house.answer(ask("ollama/pocket"))
        assert await house.models.unload("pocket") == (True, 0)
        assert house.models.running() == []
        assert await house.models.unload("pocket") == (False, 0)


async def test_unloading_from_one_engine_leaves_the_other():
    async with Quarters(*two()) as house:
        await house.answer(ask("llamacpp/pocket"))
        await house.answer(ask("ollama/pocket"))
        assert await house.models.unload("ollama/pocket") == (True, 0)
        assert [actor.entry.engine for actor in house.models.running()] == ["llamacpp"]


async def test_what_a_server_has_for_others_is_shown_and_can_be_unloaded():
    first, second = two()
    second.held = (EngineResident(model_id="pocket", memory_bytes=7), EngineResident(model_id="own"))
    async with Quarters(first, second) as house:
        shown = await house.reports.foreign_models()
        assert [(each.id, each.engine, each.resident_memory_bytes) for each in shown] == [
            ("ollama/pocket", "ollama", 7),
            ("ollama/own", "ollama", 0),
        ]
        await house.models.listings()
        assert [each.id for each in await house.reports.foreign_models()] == ["pocket", "own"]
        await house.answer(ask("ollama/pocket"))
        assert [each.id for each in await house.reports.foreign_models()] == ["own"]
        assert (await house.models.unload("own"))[0]
        assert second.released == ["own"]


async def test_a_list_shows_each_model_once_with_its_places():
    async with Quarters(*two()) as house:
        await house.answer(ask("ollama/pocket"))
        own, pocket = await house.models.listings()
        assert (own.model.id, own.entry.engine, own.state) == ("own", "ollama", ModelState.ABSENT)
        assert [each.engine for each in pocket.model.entries] == ["llamacpp", "ollama"]
        assert pocket.states == (ModelState.ABSENT, ModelState.READY)
        assert pocket.state is ModelState.READY


async def test_counts_that_come_late_are_told_at_the_end():
    engine = InstantEngine("ollama", (entry("pocket", "ollama"),), able=LATE)
    async with Quarters(engine) as house:
        events = await house.answer(ask("pocket"))
        assert (started(events).prompt_tokens, started(events).cached_tokens) == (None, None)
        finished = next(event for event in events if isinstance(event, Finished))
        assert finished.usage.prompt_tokens == 5
        assert house.learning.of("ollama a").tokens_per_byte > 0
        assert await house.inference.count_tokens("pocket", "x" * 100) == (
            house.learning.estimate("ollama a", 100, 0),
            False,
        )


async def test_a_reply_that_its_engine_cannot_go_on_with_ends_with_its_context():
    engine = InstantEngine("ollama", (entry("pocket", "ollama"),), able=LATE, ends_with=FinishReason.LENGTH)
    async with Quarters(engine) as house:
        events = await house.answer(ask("pocket"))
    assert events[-1].finish_reason is FinishReason.LENGTH
    assert len(engine.requests) == 1


async def test_a_model_elsewhere_is_planned_without_memory_and_runs_as_many_as_it_says():
    able = replace(LATE, is_local=False, slots_count=3)
    engine = InstantEngine("gpu", (entry("big", "gpu", digest="remote:gpu:big"),), able=able)
    async with Quarters(engine, default="big") as house:
        engine.may_end.clear()
        async with asyncio.timeout(5):
            streams = [house.inference.generate(ask()) for _ in range(3)]
            for stream in streams:
                while not isinstance(await anext(stream), Started):
                    pass
        assert house.inference.active_requests_count == 3
        (listing,) = await house.models.listings()
        assert house.models.fit_of(listing.entry) is None
        engine.may_end.set()
        for stream in streams:
            async with aclosing(stream):
                rest = [event async for event in stream]
            assert isinstance(rest[-1], Finished)


async def test_a_model_is_called_what_the_list_calls_it():
    first = InstantEngine("llamacpp", (entry("pocket", "llamacpp"),))
    second = InstantEngine("gpu", (entry("pocket", "gpu", digest="remote:gpu:pocket"),))
    async with Quarters(first, second) as house:
        events = await house.answer(ask("gpu/pocket"))
        assert (started(events).model, started(events).engine) == ("gpu/pocket", "gpu")
        (actor,) = house.models.running()
        assert house.models.describe(actor, 0).id == "gpu/pocket"
        assert await house.models.unload("pocket") == (False, 0)
        assert await house.models.unload("gpu/pocket") == (True, 0)


async def test_reports_say_how_every_engine_stands():
    first, second = two()
    second.state, second.detail = EngineState.NOT_INSTALLED, "there is no such program"
    async with Quarters(first, second) as house:
        reports = await house.reports.reports()
        assert [(each.status.name, each.status.state, each.models_count) for each in reports] == [
            ("llamacpp", EngineState.READY, 1),
            ("ollama", EngineState.NOT_INSTALLED, 0),
        ]
        assert await house.reports.findings() == ()


async def test_mistakes_in_the_own_file_of_models_are_found(tmp_path):
    own = tmp_path / "models.toml"
    own.write_text("models = 1")
    async with Quarters(InstantEngine("llamacpp", (entry("pocket", "llamacpp"),)), own_registry=own) as house:
        (finding,) = await house.reports.findings()
    assert finding.code == "own-registry"
    assert str(own) in finding.text
