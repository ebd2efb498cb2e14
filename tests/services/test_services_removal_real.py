"""A real model is deleted: its file, its worker and the states that were saved of it, and nothing else."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from autotuned.core.errors import ModelNotFound
from autotuned.services.catalogue import Catalogue
from autotuned.services.removal import Removal
from tests.engines.random_models import write_large_llama
from tests.services.pull_house import until
from tests.services.real_house import chat, real_house, started, text_of

LONG = "The lighthouse keeper wrote down the wind, the ships and the weather. " * 60


@pytest.fixture
async def house(tmp_path):
    async with real_house(tmp_path) as made:
        models = tmp_path / "data" / "models"
        for name, parameters_count in (("first", 40_000_000), ("second", 44_000_000)):
            write_large_llama(models / f"{name}.gguf", parameters_count=parameters_count)
        yield made


def removal_of(house):
    return Removal(catalogue=Catalogue((house.engine,)), models=house.models, prefixes=house.prefixes)


async def test_a_model_goes_with_all_that_was_kept_of_it(house, tmp_path):
    for name in ("first", "second"):
        await house.ask(chat(LONG, model=name, max_reply_tokens=4))
    workers = {actor.model_id: actor.residence.loaded.process_id for actor in house.models.running()}
    await house.models.unload("second")
    await house.prefixes.close()  # all is committed
    saved_before = house.prefixes.saved_bytes
    assert saved_before > 0
    file = tmp_path / "data" / "models" / "first.gguf"
    size_bytes = file.stat().st_size
    removed = await removal_of(house).delete("first", "")
    assert (removed.freed_bytes, removed.paths, removed.kept) == (size_bytes, (str(file),), ())
    assert not file.exists()
    assert not psutil.pid_exists(workers["first"])
    # What the unload saved of it is gone, too, and what was saved of the other one is there.
    assert (house.prefixes.saved_count, house.prefixes.saved_bytes) == (1, saved_before)
    assert len(list((tmp_path / "data" / "prefixes").iterdir())) == 1
    with pytest.raises(ModelNotFound):
        await house.ask(chat("Hello", model="first"))
    events = await house.ask(chat(LONG, model="second", max_reply_tokens=4))
    assert started(events).cached_tokens > 0


async def test_a_model_that_answers_is_deleted_when_it_has_answered(house, tmp_path):
    await house.ask(chat("Hello", model="first", max_reply_tokens=1))
    answering = asyncio.create_task(house.ask(chat("Hello", model="first", max_reply_tokens=40)))
    await until(lambda: any(actor.leases_count for actor in house.models.running()))
    deleting = asyncio.create_task(removal_of(house).delete("first", ""))
    assert text_of(await answering)
    await deleting
    assert not (tmp_path / "data" / "models" / "first.gguf").exists()
    assert house.models.running() == []
