"""Pulls: whether a model will fit, what its name means, and under which name it is found then."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from autotuned.core.errors import (
    ModelTooLarge,
)
from autotuned.policy.use_cases import UseCase
from autotuned.storage.registry import packaged_models
from tests.services.pull_house import (
    LAPTOP,
    Caller,
    ListedModels,
    PullHouse,
    Server,
    Surroundings,
    downloaded,
    pulling,
    until,
)
from tests.services.scripted import ScriptedEngine, entry
from tests.services.scripted_downloads import GIB, offer

QWEN = {"qwen3:8b": offer("qwen3:8b")}
FIRST, SECOND = "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit", "mlx-community/Llama-3.1-8B-Instruct-4bit"


def knowing(**fields):
    """Surroundings with the registry of the package."""
    return Surroundings(registry=ListedModels(models=packaged_models()), **fields)


async def test_how_it_will_fit_is_told_with_the_offer():
    sources = {"small": offer("small", size_bytes=2 * GIB), "medium": offer("medium", size_bytes=9 * GIB)}
    memory = replace(LAPTOP.memory, available_bytes=6 * GIB)
    async with PullHouse(sources=sources, surroundings=Surroundings(memory=memory)) as house:
        small, medium = Caller(house.pulls, "small"), Caller(house.pulls, "medium")
        await downloaded(house, small)
        await downloaded(house, medium)
    assert [reason.code for reason in small.told[0].reasons] == ["fits"]
    assert [reason.code for reason in medium.told[0].reasons] == ["fits", "not-now"]
    assert "2.7 GiB, by its size alone," in small.told[0].reasons[0].text
    assert (small.told[0].source, small.told[0].offer) == ("small", sources["small"])


async def test_what_the_registry_knows_is_reckoned_with_its_layers():
    async with PullHouse(
        sources={"qwen3:8b": offer("qwen3:8b", size_bytes=5 * GIB)}, surroundings=knowing()
    ) as house:
        caller = Caller(house.pulls, "qwen3:8b")
        await downloaded(house, caller)
    assert "with a context of 4,096 tokens" in caller.told[0].reasons[0].text


async def test_what_never_fits_is_a_question_with_a_model_that_does_fit():
    async with PullHouse(
        sources={"huge": offer("huge", size_bytes=90 * GIB)}, surroundings=knowing()
    ) as house:
        with pytest.raises(ModelTooLarge) as caught:
            await Caller(house.pulls, "huge").task
        suggestion = caught.value.metadata["suggestion"]
        advice = await house.recommender.recommend(UseCase.CHAT)
        assert suggestion == advice.recommendations.picks[0].pull_name
        assert f'"{suggestion}" fits.' in caught.value.message
        assert int(caught.value.metadata["requiredBytes"]) > int(caught.value.metadata["capacityBytes"])
        caller = Caller(house.pulls, "huge", allow_too_large=True)
        await downloaded(house, caller)
    assert [reason.code for reason in caller.told[0].reasons] == ["too-large"]


async def test_what_is_here_already_needs_no_consent():
    async with PullHouse(sources={"huge": offer("huge", size_bytes=90 * GIB, missing_bytes=0)}) as house:
        caller = Caller(house.pulls, "huge")
        pulled = await downloaded(house, caller)
    assert caller.told[0].reasons == ()
    assert pulled.fetched_bytes == 0


async def test_what_is_here_for_the_own_engine_is_not_there_for_a_server():
    server = Server()
    sources = {"huge": offer("huge", size_bytes=90 * GIB, missing_bytes=0)}
    async with PullHouse(server, sources=sources) as house:
        with pytest.raises(ModelTooLarge):
            await Caller(house.pulls, "huge", "ollama").task
        assert server.pulling == []


def in_hub(model_id, repository, engine="llamacpp"):
    """A model as the cache of Hugging Face has it; ``digest`` differs by repository."""
    made = entry(f"{repository} {model_id}")
    path = f"/cache/models--{repository.replace('/', '--')}/snapshots/1/{model_id.rpartition('/')[2]}.gguf"
    return replace(made, id=model_id, path=path, engine=engine)


async def test_files_of_one_name_are_told_apart_by_their_repositories():
    """The list calls the second "B/Tiny/tiny", whatever the download thought it would be called."""
    own = ScriptedEngine(entries=(in_hub("tiny", "A/Tiny"),))
    async with PullHouse(own=own, sources={"hf:B/Tiny": offer("tiny"), "hf:A/Tiny": offer("tiny")}) as house:
        arrived = (in_hub("tiny", "A/Tiny"), in_hub("B/Tiny/tiny", "B/Tiny"), in_hub("B/Tiny/more", "B/Tiny"))
        house.downloader.arrive = lambda _: setattr(own, "entries", arrived)
        pulled = await downloaded(house, Caller(house.pulls, "hf:B/Tiny"))
        assert pulled.listing.model.id == "B/Tiny/tiny"
        again = await downloaded(house, Caller(house.pulls, "hf:A/Tiny"))
        assert again.listing.model.id == "tiny"


async def test_a_name_that_another_engine_has_for_something_else():
    server = Server(entries=(replace(entry("other"), id="qwen3:8b", engine="ollama"),))
    async with PullHouse(server, sources=QWEN) as house:
        pulled = await downloaded(house, Caller(house.pulls, "qwen3:8b", "llamacpp"))
        assert (pulled.listing.model.id, pulled.listing.entry.engine) == ("qwen3:8b", "llamacpp")
    server = Server()
    own = ScriptedEngine(entries=(replace(entry("other"), id="qwen3:8b"),))
    async with PullHouse(server, own=own, sources=QWEN) as house:
        caller = Caller(house.pulls, "qwen3:8b")
        (await pulling(server)).finish()
        await caller.task
        pulled = caller.told[-1]
        assert (pulled.listing.model.id, pulled.listing.entry.engine) == ("ollama/qwen3:8b", "ollama")


async def test_what_a_name_stands_for():
    async with PullHouse() as house:
        for name, engine, texts, code in (
            ("qwen3:8b", "", ["qwen3:8b"], "source"),
            ("hf.co/Qwen/Tiny-GGUF:Q8_0", "", ["hf:Qwen/Tiny-GGUF:Q8_0"], "source"),
            ("llama3.1:8b", "mlx", [f"hf:{FIRST}", f"hf:{SECOND}"], "rule"),
            (f"hf:{FIRST}", "mlx", [f"hf:{FIRST}"], "repository"),
            ("nobody/knows", "mlx", [], "unknown"),
        ):
            references, reasons = await house.pulls.resolve(name, engine)
            assert [reference.text for reference in references] == texts, name
            assert [reason.code for reason in reasons] == [code], name
        assert house.downloader.asked == []


async def test_ids_of_the_registry_are_names_too():
    model = next(each for each in packaged_models() if "ollama" in each.names)
    name = model.names["ollama"]
    async with PullHouse(sources={name: offer(name)}, surroundings=knowing()) as house:
        pulled = await downloaded(house, Caller(house.pulls, model.id))
        assert pulled.listing.model.id == name
        assert house.downloader.asked == [name]


async def test_many_pulls_at_once_keep_apart():
    sources = {f"model-{number}": offer(f"model-{number}") for number in range(8)}
    async with PullHouse(sources=sources) as house:
        callers = [Caller(house.pulls, name) for name in sources for _ in range(3)]
        await until(lambda: sum(each.is_fetching for each in house.downloader.downloads) == len(sources))
        for download in house.downloader.downloads:
            download.finish()
        await asyncio.gather(*(caller.task for caller in callers))
        assert sorted(house.downloader.asked) == sorted(sources)
        assert [caller.told[-1].listing.model.id for caller in callers] == [
            name for name in sources for _ in range(3)
        ]
