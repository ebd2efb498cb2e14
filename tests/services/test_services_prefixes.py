"""KV prefixes: what is saved when, what is read back for whom, and that nothing else ever suffers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from autotuned.core.chat import RawPrompt, Role
from autotuned.core.errors import EngineUnreachable, StorageFull
from autotuned.core.model import LayerGroup
from autotuned.core.settings import PrefixSettings
from autotuned.services import live_prefixes, saved_prefixes
from autotuned.services import prefixes as prefixes_module
from autotuned.services.prefixes import Prefixes
from autotuned.storage.db import Database
from autotuned.storage.prefixes import FilePrefixStore
from tests.services.kv_model import ANSWER, ENTRY, FIRST, OTHER, SECOND, SYSTEM, KvModel, ask, serve, text

CONVERSATION_TOKENS = 540
REPLY_TOKENS = 5


class ManualClock:
    def __init__(self):
        self.seconds = 1000.0

    def now(self):
        return 1_790_000_000.0 + self.seconds

    def monotonic(self):
        return self.seconds


class House:
    """A daemon's prefixes, which can be started again on the same folder."""

    def __init__(self, folder):
        self.folder = folder / "prefixes"
        self._database = None
        self.clock = ManualClock()
        self.store = None
        self.prefixes = None

    async def start(self, **settings):
        self._database = await Database(self.folder.parent / "autotune.db").__aenter__()
        self.store = FilePrefixStore(self._database, self.folder)
        self.prefixes = Prefixes(store=self.store, settings=PrefixSettings(**settings), clock=self.clock)
        await self.prefixes.open()
        return self.prefixes

    async def restart(self, **settings):
        await self.stop()
        return await self.start(**settings)

    async def stop(self):
        await self.prefixes.close()
        await self._database.__aexit__(None, None, None)

    def files(self):
        return sorted(path.name for path in self.folder.glob("*"))

    async def rest(self, seconds=6.0):
        self.clock.seconds += seconds
        await self.prefixes.checkpoint()
        await self.prefixes.close()


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    await house.start()
    yield house
    await house.stop()


@pytest.fixture
def model(house):
    return KvModel(house.folder)


async def unload(house, model):
    await house.prefixes.save(model)
    house.prefixes.forget(model)
    model.is_gone = True


async def test_a_conversation_goes_on_after_an_unload(house, model):
    assert await serve(house.prefixes, model, ask(SYSTEM, FIRST)) == 0
    await unload(house, model)
    again = KvModel(house.folder, "two")
    assert (
        await serve(house.prefixes, again, ask(SYSTEM, FIRST, ANSWER, SECOND))
        == CONVERSATION_TOKENS + REPLY_TOKENS
    )
    assert (house.prefixes.hits_count, house.prefixes.misses_count) == (1, 0)


async def test_a_growth_restores_into_the_larger_context(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    larger = KvModel(house.folder, "two", context_tokens=8192, slots_count=2, kv_unified=True)
    assert await serve(house.prefixes, larger, ask(SYSTEM, FIRST, ANSWER, SECOND)) >= CONVERSATION_TOKENS


async def test_a_conversation_goes_on_after_a_restart_of_the_daemon(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.prefixes.save(model)
    prefixes = await house.restart()
    assert prefixes.saved_count == 1
    assert prefixes.saved_bytes == sum(path.stat().st_size for path in house.folder.iterdir())
    again = KvModel(house.folder, "two")
    assert await serve(prefixes, again, ask(SYSTEM, FIRST, ANSWER, SECOND)) >= CONVERSATION_TOKENS


async def test_what_rests_is_saved_once_and_survives_a_kill(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.rest(4.0)
    assert model.saves == []
    await house.rest(2.0)
    await house.rest()
    assert len(model.saves) == 1
    prefixes = await house.restart()  # nothing was said to the incarnation: it died with the process
    assert await serve(prefixes, KvModel(house.folder, "two"), ask(SYSTEM, FIRST)) == CONVERSATION_TOKENS


async def test_a_conversation_that_went_on_replaces_its_file(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.rest()
    before = house.files()
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND))
    await house.rest()
    assert len(before) == len(house.files()) == 1
    assert before != house.files()
    assert [each.tokens_count for each in await house.store.prefixes()] == [CONVERSATION_TOKENS + 2 * 5 + 200]


async def test_a_few_more_tokens_are_not_worth_another_file(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.rest()
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, text(Role.USER, 20)))
    await house.rest()
    await house.prefixes.save(model)
    assert len(model.saves) == 1


async def test_a_short_conversation_is_not_worth_a_file(house, model):
    await serve(house.prefixes, model, ask(FIRST))
    await house.prefixes.save(model)
    assert model.saves == []


async def test_another_conversation_starts_from_the_saved_system_prompt(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    again = KvModel(house.folder, "two")
    assert await serve(house.prefixes, again, ask(SYSTEM, OTHER)) == 500
    await house.prefixes.close()
    assert house.prefixes.hits_count == 1
    assert house.prefixes.saved_count == 1


async def test_a_raw_prompt_goes_on(house, model):
    prompt = "word " * 400
    request = replace(ask(), input=RawPrompt(prompt))
    chain = house.prefixes.chain(request, ENTRY, model, "1")
    assert len(chain.boundaries) == len(prompt) // 512
    longer = house.prefixes.chain(replace(ask(), input=RawPrompt(prompt + "more")), ENTRY, model, "1")
    assert (longer.conversation, longer.boundaries) == (chain.conversation, chain.boundaries)


async def test_nothing_is_read_back_while_it_is_live(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.rest()
    assert await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND)) >= CONVERSATION_TOKENS
    assert await serve(house.prefixes, model, ask(SYSTEM, OTHER)) == 500
    assert model.restores == []


async def test_a_state_that_made_way_is_read_back(house, model):
    """One slot, no cache of the engine: the other conversation begins differently and takes the slot."""
    other = text(Role.SYSTEM, 600, "different")
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await serve(house.prefixes, model, ask(other, OTHER))
    assert len(model.saves) == 1  # before it was lost
    assert await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND)) >= CONVERSATION_TOKENS
    assert len(model.saves) == 2  # the other one, before the file was read into its slot


async def test_what_the_engine_keeps_in_memory_is_left_to_it(house):
    model = KvModel(house.folder, host_prompt_cache_bytes=64 << 20)
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.rest()
    await serve(house.prefixes, model, ask(text(Role.SYSTEM, 600, "different"), OTHER))
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND))
    assert (len(model.saves), model.restores) == (1, [])


async def test_what_is_kept_beside_the_slots_is_not_fetched_back_before_the_end(house):
    model = KvModel(house.folder, host_prompt_cache_bytes=64 << 20)
    different = ask(text(Role.SYSTEM, 600, "different"), OTHER)
    beside = house.prefixes.chain(ask(SYSTEM, FIRST, ANSWER, SECOND), ENTRY, model, "1").conversation
    in_slot = house.prefixes.chain(different, ENTRY, model, "1").conversation
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND))  # of more worth
    await serve(house.prefixes, model, different)
    await house.rest()
    assert model.saves == [in_slot]
    await serve(house.prefixes, model, ask(*different.input.messages, ANSWER, text(Role.USER, 70)))
    await house.prefixes.save(model)
    assert model.saves == [in_slot, in_slot, beside]


async def test_the_engines_count_of_what_it_wrote_is_believed(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    write = model.save_prefix

    async def lesser(conversation, file_name):
        written = await write(conversation, file_name)
        return replace(written, tokens_count=written.tokens_count - 100)

    model.save_prefix = lesser
    await house.rest()
    await house.rest()
    assert len(model.saves) == 1
    (saved,) = await house.store.prefixes()
    assert saved.tokens_count == CONVERSATION_TOKENS + REPLY_TOKENS - 100


async def test_each_slot_has_its_conversation(house):
    model = KvModel(house.folder, slots_count=2)
    different = text(Role.SYSTEM, 600, "different")
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await serve(house.prefixes, model, ask(different, OTHER))
    assert await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND)) >= CONVERSATION_TOKENS
    assert (model.saves, model.restores) == ([], [])
    await unload(house, model)
    assert len(house.files()) == 2


async def test_what_a_client_wants_discarded_is_never_written(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, discard=True))
    await house.rest()
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND))  # the same state goes on
    await unload(house, model)
    assert (model.saves, house.files()) == ([], [])


async def test_discarded_conversations_are_forgotten_and_still_never_written(house, model, monkeypatch):
    monkeypatch.setattr(live_prefixes, "REMEMBERED_COUNT", 2)
    monkeypatch.setattr(live_prefixes, "REMEMBERED_DISCARDED_COUNT", 8)
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, discard=True))
    for number in range(5):
        await serve(house.prefixes, model, ask(text(Role.SYSTEM, 9, f"system{number}"), OTHER, discard=True))
    incarnation = house.prefixes._incarnations[model.incarnation_id]
    assert len(incarnation.conversations) == 3
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND))
    for number in range(20):
        await serve(house.prefixes, model, ask(text(Role.SYSTEM, 9, f"more{number}"), OTHER, discard=True))
    await unload(house, model)
    assert model.saves == []
    assert len(incarnation._discarded) == 8


async def test_a_discarded_request_that_broke_off_is_not_written_either(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    request = ask(SYSTEM, FIRST, ANSWER, SECOND, discard=True)
    chain = house.prefixes.chain(request, ENTRY, model, "1")
    await house.prefixes.before_request(model, ENTRY, chain)
    house.prefixes.broke_off(model, chain)
    await unload(house, model)
    assert model.saves == []


async def test_a_request_that_broke_off_leaves_what_was_before(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    chain = house.prefixes.chain(ask(SYSTEM, FIRST, ANSWER, SECOND), ENTRY, model, "1")
    await house.prefixes.before_request(model, ENTRY, chain)
    await house.rest()
    assert model.saves == []  # it is being served
    house.prefixes.broke_off(model, chain)
    await house.rest()
    assert [each.tokens_count for each in await house.store.prefixes()] == [
        CONVERSATION_TOKENS + REPLY_TOKENS
    ]


async def test_a_changed_history_is_named_by_what_is_left_of_it(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND))
    edited = house.prefixes.chain(ask(SYSTEM, FIRST, ANSWER, OTHER), ENTRY, model, "1")
    await house.prefixes.before_request(model, ENTRY, edited)
    house.prefixes.broke_off(model, edited)
    await unload(house, model)
    await house.prefixes.close()
    (saved,) = await house.store.prefixes()
    assert saved.boundaries == edited.boundaries[:3]


async def test_a_request_waits_for_the_save_under_way(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    model.gate = asyncio.Event()
    house.clock.seconds += 10
    checkpoint = asyncio.create_task(house.prefixes.checkpoint())
    await model.saving.wait()
    request = asyncio.create_task(serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not request.done()
    model.gate.set()
    await asyncio.gather(checkpoint, request)
    await house.prefixes.close()
    assert [each.tokens_count for each in await house.store.prefixes()] == [
        CONVERSATION_TOKENS + REPLY_TOKENS
    ]


@pytest.mark.parametrize("damage", [b"x", b"[]"])
async def test_a_damaged_file_is_removed_and_costs_nothing_else(house, model, caplog, damage):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    await house.prefixes.close()
    (name,) = house.files()
    with (house.folder / name).open("r+b") as file:
        file.write(damage)
    again = KvModel(house.folder, "two")
    assert await serve(house.prefixes, again, ask(SYSTEM, FIRST)) == 0
    await house.prefixes.close()
    assert (house.files(), again.restores) == ([], [])
    assert "a damaged prefix is removed" in caplog.messages
    assert await house.store.prefixes() == []


async def test_a_file_that_the_engine_refuses_is_removed(house, model, caplog):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    again = KvModel(house.folder, "two")

    async def refuse(_conversation, _file_name):
        return 0

    again.restore_prefix = refuse
    assert await serve(house.prefixes, again, ask(SYSTEM, FIRST)) == 0
    await house.prefixes.close()
    assert house.files() == []
    assert "the engine refused a prefix" in caplog.messages


async def test_a_miss_is_a_miss(house, model):
    """The engine says that it read the file, and then counts nothing as cached."""
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    again = KvModel(house.folder, "two")

    async def pretend(_conversation, _file_name):
        return CONVERSATION_TOKENS

    again.restore_prefix = pretend
    assert await serve(house.prefixes, again, ask(SYSTEM, FIRST)) == 0
    assert (house.prefixes.hits_count, house.prefixes.misses_count) == (0, 1)
    assert house.prefixes.saved_count == 0
    await unload(house, again)
    await house.prefixes.close()
    assert house.prefixes.saved_count == 1  # what was computed instead


async def test_an_engine_that_is_gone_is_said_before_the_request_was_sent(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    again = KvModel(house.folder, "two")
    chain = house.prefixes.chain(ask(SYSTEM, FIRST), ENTRY, again, "1")
    again.is_gone = True
    with pytest.raises(EngineUnreachable) as caught:
        await house.prefixes.before_request(again, ENTRY, chain)
    assert not caught.value.served


async def test_a_file_that_the_engine_dies_of_is_removed(house, model):
    """The next request of its conversation is served by another engine, without it."""
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    again = KvModel(house.folder, "two")

    async def die(_conversation, _file_name):
        again.is_gone = True
        raise EngineUnreachable("it died")

    again.restore_prefix = die
    with pytest.raises(EngineUnreachable):
        await serve(house.prefixes, again, ask(SYSTEM, FIRST))
    house.prefixes.forget(again)
    assert await serve(house.prefixes, KvModel(house.folder, "three"), ask(SYSTEM, FIRST)) == 0
    await house.prefixes.close()
    assert house.files() == []


@pytest.mark.parametrize("refusal", [StorageFull("full"), EngineUnreachable("gone")])
async def test_a_save_that_fails_leaves_no_file(house, model, refusal, caplog):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    model.refusal = refusal
    await house.prefixes.save(model)
    await house.prefixes.close()
    assert (house.files(), house.prefixes.saved_count) == ([], 0)
    assert "prefix was not saved" in caplog.messages
    model.refusal = None
    await house.rest()
    await house.prefixes.save(model)
    assert len(model.saves) == 1  # it has not changed, and is not tried again
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND))
    await unload(house, model)
    assert house.prefixes.saved_count == 0  # written, and not committed yet
    await house.prefixes.close()
    assert house.prefixes.saved_count == 1


async def test_a_save_takes_no_longer_than_it_may(house, model, monkeypatch, caplog):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    monkeypatch.setattr(prefixes_module, "SAVE_SECONDS", 0.01)
    model.gate = asyncio.Event()
    await house.prefixes.save(model)
    await house.prefixes.close()
    assert house.files() == []
    assert "not all prefixes were saved in time" in caplog.messages
    late = house.folder / model.file_names[0]
    late.write_bytes(b"the engine had not opened it yet")
    house.prefixes.forget(model)
    await house.prefixes.close()
    assert house.files() == []


async def test_what_cannot_be_written_in_time_is_not_begun(house, model, monkeypatch, caplog):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    monkeypatch.setattr(live_prefixes, "WRITE_BYTES_PER_SECOND", 1000.0)
    await house.prefixes.save(model, 5.0)
    assert model.saves == []
    assert "not all prefixes were saved in time" in caplog.messages


async def test_a_state_that_another_one_replaced_is_not_saved_under_its_name(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    model.evaluate(ask(text(Role.USER, 9, "stranger")), "stranger")
    await house.prefixes.save(model)
    await house.prefixes.close()
    assert (len(model.saves), house.files(), house.prefixes.saved_count) == (1, [], 0)


async def test_the_least_worth_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(prefixes_module, "_MIB", 1 << 10)
    house = House(tmp_path)
    await house.start(disk_mib=1300)  # two of the states, by what they are estimated at
    for number in range(3):
        model = KvModel(house.folder, f"incarnation {number}")
        house.clock.seconds += 3600
        await serve(house.prefixes, model, ask(text(Role.SYSTEM, 500, f"system{number}"), FIRST))
        await unload(house, model)
        await house.prefixes.close()
    kept = await house.store.prefixes()
    assert sorted(each.created_at for each in kept) == [house.clock.now() - 3600, house.clock.now()]
    assert len(house.files()) == 2
    await house.stop()


async def test_what_is_over_a_lower_cap_goes_at_the_next_start(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    prefixes = await house.restart(disk_mib=0)
    assert (prefixes.saved_count, house.files()) == (0, [])
    again = KvModel(house.folder, "two")
    assert prefixes.chain(ask(SYSTEM, FIRST), ENTRY, again, "1").boundaries == ()
    await serve(prefixes, again, ask(SYSTEM, FIRST))
    await unload(house, again)
    assert again.saves == []


async def test_a_disk_that_is_almost_full_is_left_alone_and_said_once(house, model, monkeypatch, caplog):
    monkeypatch.setattr(saved_prefixes, "RESERVE_BYTES", 1 << 62)
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.rest()
    await house.rest()
    assert (model.saves, house.files()) == ([], [])
    assert caplog.messages.count("prefixes are not saved") == 1


async def test_nothing_makes_room_on_a_disk_that_stays_full(house, model, monkeypatch):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    await house.prefixes.close()
    saved = house.prefixes._saved
    saved._cap_bytes = saved.bytes_count
    monkeypatch.setattr(saved_prefixes, "RESERVE_BYTES", 1 << 62)
    again = KvModel(house.folder, "two")
    different = ask(text(Role.SYSTEM, 500, "different"), FIRST)
    house.clock.seconds += 3600
    await serve(house.prefixes, again, different)
    await unload(house, again)
    assert again.saves == []
    assert house.prefixes.saved_count == 1


async def test_without_a_folder_everything_goes_on(tmp_path, caplog):
    (tmp_path / "prefixes").write_text("in the way")
    house = House(tmp_path)
    prefixes = await house.start()
    model = KvModel(house.folder)
    assert await serve(prefixes, model, ask(SYSTEM, FIRST)) == 0
    await unload(house, model)
    assert model.saves == []
    assert caplog.messages == ["prefixes are not saved"]
    await house.stop()


async def test_models_that_cannot_rewind_are_left_out_and_that_is_said_once(house, model, caplog):
    caplog.set_level("INFO")
    windows = LayerGroup(layers_count=4, kv_heads=2, key_length=32, value_length=32, window_tokens=128)
    entry = replace(ENTRY, facts=replace(ENTRY.facts, layer_groups=(windows,)))
    for _ in range(2):
        chain = house.prefixes.chain(ask(SYSTEM, FIRST), entry, model, "1")
        assert chain.conversation
        assert chain.boundaries == ()
        await house.prefixes.before_request(model, entry, chain)
    assert caplog.messages == ["prefixes are not saved"]


async def test_deleting_says_how_much_and_what_is_live_is_not_written_again(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.rest()
    bytes_before = house.prefixes.saved_bytes
    assert await house.prefixes.delete("another") == (0, 0)
    assert await house.prefixes.delete(ENTRY.key) == (1, bytes_before)
    assert await house.prefixes.delete("") == (0, 0)
    assert house.files() == []
    await house.rest()
    assert house.files() == []
    await serve(house.prefixes, model, ask(SYSTEM, FIRST, ANSWER, SECOND))
    await house.rest()
    assert len(house.files()) == 1


async def test_deleting_reaches_what_is_being_committed(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await house.prefixes.save(model)
    assert (await house.prefixes.delete(""))[0] == 1
    assert house.files() == []
    assert await house.store.prefixes() == []


async def test_deleting_waits_for_a_save_under_way(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    model.gate = asyncio.Event()
    saving = asyncio.create_task(house.prefixes.save(model))
    await model.saving.wait()
    deleting = asyncio.create_task(house.prefixes.delete(""))
    for _ in range(20):
        await asyncio.sleep(0)
    model.gate.set()
    await saving
    assert (await deleting)[0] == 1
    await house.rest()
    assert (house.files(), len(model.saves)) == ([], 1)


async def test_what_nobody_used_for_long_goes(house, model):
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    await unload(house, model)
    await house.prefixes.close()
    house.clock.seconds += 6 * 24 * 3600
    await serve(house.prefixes, KvModel(house.folder, "two"), ask(SYSTEM, FIRST))  # a use
    house.clock.seconds += 6 * 24 * 3600
    await house.prefixes.expire()
    assert len(house.files()) == 1
    house.clock.seconds += 2 * 24 * 3600
    await house.prefixes.expire()
    assert house.files() == []


async def test_two_at_once_in_one_conversation_are_both_waited_for(house):
    model = KvModel(house.folder, slots_count=2)
    first, second = (house.prefixes.chain(ask(SYSTEM, FIRST), ENTRY, model, "1") for _ in range(2))
    await house.prefixes.before_request(model, ENTRY, first)
    await house.prefixes.before_request(model, ENTRY, second)
    usage = model.evaluate(ask(SYSTEM, FIRST), first.conversation)
    house.prefixes.after_request(model, ENTRY, first, usage, 5.0, discard=False)
    await house.rest()
    assert model.saves == []
    house.prefixes.after_request(model, ENTRY, second, usage, 5.0, discard=False)
    await house.rest()
    assert len(model.saves) == 1


async def test_a_state_that_reading_another_one_displaced_is_read_back_in_its_turn(house):
    model = KvModel(house.folder, host_prompt_cache_bytes=1 << 30)
    other = ask(text(Role.SYSTEM, 500, "another"), FIRST)
    await serve(house.prefixes, model, other)
    await house.prefixes.save(model)
    house.prefixes.forget(model)
    model = KvModel(house.folder, "two", host_prompt_cache_bytes=1 << 30)
    await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    assert await serve(house.prefixes, model, other) > 0  # from its file, into the only slot
    again = await serve(house.prefixes, model, ask(SYSTEM, FIRST))
    assert again > 0
    assert len(model.restores) == 2
