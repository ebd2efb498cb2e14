"""Deleting models: every copy that can go, out of memory first, and nothing of any other model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from autotuned.core.engine import EngineResident, EngineState
from autotuned.core.errors import EngineUnreachable, FieldInvalid, ModelNotFound, StorageFull, Unsupported
from autotuned.core.prefix import SavedPrefix
from autotuned.core.settings import PrefixSettings
from autotuned.services.prefixes import Prefixes
from autotuned.services.removal import Removal, Removed
from autotuned.storage.db import Database
from autotuned.storage.prefixes import FilePrefixStore
from tests.services.instant import InstantEngine, Quarters, entry
from tests.services.scripted import HandClock

OLLAMAS = Unsupported('"pocket" is Ollama\'s; delete it with "ollama rm pocket".')


@dataclass
class Shelf(InstantEngine):
    """An engine whose files can be deleted when they are not in memory; ``refusal`` is raised instead.

    ``stores`` are engines whose files it lists, too: where one of those deletes a file, it is gone here.
    """

    refusal: Exception | None = None
    stores: tuple = ()
    deleted: list = field(default_factory=list)

    async def models(self):
        listed = await super().models()
        there = {each.path for engine in self.stores for each in engine.entries}
        return tuple(each for each in listed if not self.stores or each.path in there)

    async def delete(self, entry):
        await asyncio.sleep(0)
        assert all(model.is_gone for model in self.loaded), "it is in memory"
        if self.refusal:
            raise self.refusal
        self.deleted.append(entry.id)
        return 1000 * await super().delete(entry)


def two(**fields):
    """Two copies of "pocket", each on an engine that has something else as well; ``fields`` are of the second."""
    first = Shelf("llamacpp", (entry("pocket", "llamacpp"), entry("zoo", "llamacpp", digest="z")))
    second = Shelf("ollama", (entry("pocket", "ollama"), entry("own", "ollama", digest="b")), **fields)
    return first, second


def saved(model_key, number):
    return SavedPrefix(
        id=f"{number:032x}",
        model_id=model_key,
        file_name=f"{number:032x}.kv",
        boundaries=(f"b{number}",),
        boundary_tokens=(500,),
        tokens_count=500,
        bytes_count=9,
        sha256="",
        prefill_seconds=5.0,
        created_at=1_000.0,
        last_used_at=1_000.0,
    )


class House(Quarters):
    """With prefixes on the disk: one for each of ``keys``."""

    def __init__(self, folder, *engines):
        super().__init__(*engines)
        self._folder = folder
        self._database = None
        self.prefixes = None
        self.removal = None

    async def __aenter__(self):
        self._database = await Database(self._folder / "autotune.db").__aenter__()
        store = FilePrefixStore(self._database, self._folder / "prefixes")
        assert await store.prefixes() == []  # makes the folder
        keys = ("pocket", "ollama/pocket", "zoo", "ollama/own")
        for number, key in enumerate(keys):
            prefix = saved(key, number)
            (store.folder / prefix.file_name).write_bytes(b"KV state.")
            await store.add(prefix)
        self.store = store
        self.prefixes = Prefixes(store=store, settings=PrefixSettings(), clock=HandClock())
        await self.prefixes.open()
        assert self.prefixes.saved_count == len(keys)
        self.removal = Removal(catalogue=self.catalogue, models=self.models, prefixes=self.prefixes)
        return await super().__aenter__()

    async def __aexit__(self, *error):
        await super().__aexit__(*error)
        await self.prefixes.close()
        await self._database.__aexit__(*error)

    async def prefixed(self):
        """The models that have saved prefixes, by what is on the disk."""
        kept = await self.store.prefixes()
        assert {each.file_name for each in kept} == {path.name for path in self.store.folder.iterdir()}
        return {each.model_id for each in kept}

    async def load(self, model, engine=""):
        return await self.models.load(model, None, None, None, None, lambda _: None, engine)

    async def ids(self):
        return [listing.model.id for listing in await self.models.listings()]


async def test_every_copy_goes_and_its_prefixes_alone(tmp_path):
    first, second = two()
    async with House(tmp_path, first, second) as house:
        removed = await house.removal.delete("pocket", "")
        assert removed == Removed(freed_bytes=2000, paths=("/pocket", "/pocket"), kept=())
        assert await house.ids() == ["own", "zoo"]
        assert await house.prefixed() == {"zoo", "ollama/own"}
    assert (first.deleted, second.deleted) == (["pocket"], ["pocket"])


@pytest.mark.parametrize(("name", "engine"), [("pocket", "ollama"), ("ollama/pocket", "")])
async def test_one_engines_copy_goes_and_the_other_stays(tmp_path, name, engine):
    first, second = two()
    async with House(tmp_path, first, second) as house:
        removed = await house.removal.delete(name, engine)
        assert removed == Removed(freed_bytes=1000, paths=("/pocket",), kept=())
        assert (await house.models.get("pocket")).entry.engine == "llamacpp"
        assert await house.prefixed() == {"pocket", "zoo", "ollama/own"}
    assert (first.deleted, second.deleted) == ([], ["pocket"])


async def test_what_stays_is_told_with_what_to_do(tmp_path):
    first, second = two(refusal=OLLAMAS)
    async with House(tmp_path, first, second) as house:
        removed = await house.removal.delete("pocket", "")
        assert (removed.freed_bytes, removed.paths) == (1000, ("/pocket",))
        assert [(reason.code, reason.text) for reason in removed.kept] == [("kept", OLLAMAS.message)]
        assert await house.prefixed() == {"ollama/pocket", "zoo", "ollama/own"}


async def test_a_copy_whose_engine_does_not_answer_is_not_said_to_be_gone(tmp_path):
    first, second = two(refusal=EngineUnreachable("Ollama does not answer; try again."))

    async def delete(entry):
        second.state = EngineState.UNREACHABLE  # its list is empty from now on
        raise second.refusal

    second.delete = delete
    async with House(tmp_path, first, second) as house:
        removed = await house.removal.delete("pocket", "")
        assert [reason.text for reason in removed.kept] == ["Ollama does not answer; try again."]
        assert await house.prefixed() == {"ollama/pocket", "zoo", "ollama/own"}


async def test_a_file_that_went_with_another_engines_copy_is_not_said_to_stay(tmp_path):
    first, second = two()
    first.refusal, first.stores = OLLAMAS, (second,)
    async with House(tmp_path, first, second) as house:
        removed = await house.removal.delete("pocket", "")
        assert removed == Removed(freed_bytes=1000, paths=("/pocket",), kept=())
        assert await house.prefixed() == {"zoo", "ollama/own"}


async def test_a_copy_that_somebody_else_deletes_meanwhile_holds_nothing_up(tmp_path):
    first, second = two()

    async def delete(entry):
        first.entries = first.entries[1:]
        raise ModelNotFound(entry.id, "")

    first.delete = delete
    async with House(tmp_path, first, second) as house:
        removed = await house.removal.delete("pocket", "")
        assert removed == Removed(freed_bytes=1000, paths=("/pocket",), kept=())
        assert await house.prefixed() == {"zoo", "ollama/own"}


@pytest.mark.parametrize("error", [OLLAMAS, EngineUnreachable("It does not answer.")])
async def test_where_nothing_can_go_the_reason_is_raised(tmp_path, error):
    first, second = two(refusal=error)
    first.refusal = error
    async with House(tmp_path, first, second) as house:
        with pytest.raises(type(error)) as caught:
            await house.removal.delete("pocket", "")
        assert caught.value is error
        assert await house.ids() == ["own", "pocket", "zoo"]
        assert len(await house.prefixed()) == 4


async def test_a_disk_that_refuses_one_copy_does_not_hide_that_the_other_went(tmp_path):
    first, second = two(refusal=StorageFull("The disk is read-only."))
    async with House(tmp_path, first, second) as house:
        removed = await house.removal.delete("pocket", "")
        assert removed.paths == ("/pocket",)
        assert [reason.text for reason in removed.kept] == ["The disk is read-only."]
        assert await house.prefixed() == {"ollama/pocket", "zoo", "ollama/own"}
        with pytest.raises(StorageFull):
            await house.removal.delete("pocket", "")


@pytest.mark.parametrize(
    ("name", "engine", "error"),
    [
        ("", "", FieldInvalid),
        ("pocked", "", ModelNotFound),
        ("own", "llamacpp", ModelNotFound),
        ("pocket", "nowhere", FieldInvalid),
    ],
)
async def test_nothing_is_deleted_by_mistake(tmp_path, name, engine, error):
    first, second = two()
    async with House(tmp_path, first, second) as house:
        with pytest.raises(error):
            await house.removal.delete(name, engine)
        assert len(await house.prefixed()) == 4
    assert (first.deleted, second.deleted) == ([], [])


async def test_a_loaded_model_leaves_memory_first(tmp_path):
    first, second = two()
    async with House(tmp_path, first, second) as house:
        (await house.load("pocket", "ollama")).release()
        (await house.load("pocket", "llamacpp")).release()
        assert [model.alive for model in first.loaded + second.loaded] == [True, True]
        await house.removal.delete("pocket", "")
        assert [model.alive for model in first.loaded + second.loaded] == [False, False]
        assert house.models.running() == []


async def test_other_models_stay_in_memory(tmp_path):
    first, second = two()
    first.delete = lambda entry: InstantEngine.delete(first, entry)  # "zoo" is in memory
    async with House(tmp_path, first, second) as house:
        (await house.load("zoo")).release()
        await house.removal.delete("pocket", "")
        assert [actor.model_id for actor in house.models.running()] == ["zoo"]


async def test_a_busy_model_is_waited_for(tmp_path):
    first, second = two()
    async with House(tmp_path, first, second) as house:
        lease = await house.load("pocket", "llamacpp")
        deleting = asyncio.create_task(house.removal.delete("pocket", ""))
        for _ in range(20):
            await asyncio.sleep(0)
        assert (deleting.done(), first.deleted, first.loaded[0].alive) == (False, [], True)
        lease.release()
        removed = await deleting
        assert removed.freed_bytes == 2000
        assert await house.prefixed() == {"zoo", "ollama/own"}


async def test_who_gives_up_waiting_has_nothing_deleted(tmp_path):
    first, second = two()
    async with House(tmp_path, first, second) as house:
        lease = await house.load("pocket", "llamacpp")
        deleting = asyncio.create_task(house.removal.delete("pocket", ""))
        for _ in range(20):
            await asyncio.sleep(0)
        deleting.cancel()
        await asyncio.wait([deleting])
        lease.release()
        assert await house.ids() == ["own", "pocket", "zoo"]
        assert len(await house.prefixed()) == 4
    assert (first.deleted, second.deleted) == ([], [])


async def test_what_a_server_has_in_memory_for_others_leaves_too(tmp_path):
    first, second = two()
    second.held = (EngineResident(model_id="pocket"),)
    async with House(tmp_path, first, second) as house:
        await house.removal.delete("pocket", "ollama")
    assert second.released == ["pocket"]


async def test_a_model_that_was_deleted_can_come_back(tmp_path):
    first, _ = two()
    async with House(tmp_path, first) as house:
        (await house.load("pocket")).release()
        await house.removal.delete("pocket", "")
        with pytest.raises(ModelNotFound):
            await house.load("pocket")
        first.entries = (entry("pocket", "llamacpp"),)
        (await house.load("pocket")).release()
        assert [model.alive for model in first.loaded] == [False, True]
