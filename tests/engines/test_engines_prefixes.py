"""KV prefixes with the real engine, real files and a real manifest: computed once, never again."""

from __future__ import annotations

import stat
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from autotuned.core.chat import ChatInput, GenerationRequest, Message, RawPrompt, Role, Sampling, TextPart
from autotuned.core.generation import EngineFinished, TextDelta
from autotuned.core.plan import KvCacheType
from autotuned.core.settings import PrefixSettings
from autotuned.services.prefixes import Prefixes
from autotuned.storage.db import Database
from autotuned.storage.prefixes import FilePrefixStore
from tests.engines.random_models import write_model
from tests.engines.shapes import shape

SYSTEM = Message(
    Role.SYSTEM, (TextPart("".join(f"Rule {number}: be brief and kind. " for number in range(100))),)
)
QUESTION = Message(Role.USER, (TextPart("What is the capital of France?"),))
FOLLOW_UP = Message(Role.USER, (TextPart("And of Italy?"),))
# What the template and the new message may cost beside what was there.
FEW_TOKENS = 60


def ask(*messages, **options):
    return GenerationRequest(
        model="",
        input=ChatInput(messages),
        sampling=Sampling(temperature=0.0),
        max_reply_tokens=24,
        **options,
    )


async def serve(prefixes, loaded, entry, request):
    """One request, as the services run it; returns its usage and its text."""
    chain = prefixes.chain(request, entry, loaded, "1")
    await prefixes.before_request(loaded, entry, chain)
    text = ""
    async for event in loaded.generate(request, chain.conversation):
        if isinstance(event, TextDelta):
            text += event.text
        if isinstance(event, EngineFinished):
            finished = event
    prefixes.after_request(
        loaded, entry, chain, finished.usage, finished.prefill_seconds, discard=request.discard
    )
    return finished.usage, text


@asynccontextmanager
async def opened(paths, clock, **settings):
    """Prefixes as a daemon opens them; leaving is the daemon's end."""
    async with Database(paths.data / "autotune.db") as database:
        store = FilePrefixStore(database, paths.prefixes)
        prefixes = Prefixes(store=store, settings=PrefixSettings(**settings), clock=clock)
        await prefixes.open()
        yield prefixes
        await prefixes.close()


@asynccontextmanager
async def loaded_model(engine, entry, prefixes, **changes):
    """A model that is saved before it is unloaded, as its actor does."""
    loaded = await engine.load(entry, shape(**changes), lambda _: None)
    try:
        yield loaded
    finally:
        await prefixes.save(loaded)
        prefixes.forget(loaded)
        await loaded.unload()


async def first_turn(engine, entry, prefixes, **changes):
    """Asks and unloads; returns the usage and what the model said."""
    async with loaded_model(engine, entry, prefixes, **changes) as loaded:
        usage, text = await serve(prefixes, loaded, entry, ask(SYSTEM, QUESTION))
    assert usage.cached_tokens == 0
    assert usage.prompt_tokens > 1000
    return usage, Message(Role.ASSISTANT, (TextPart(text),))


def evaluated(usage):
    return usage.prompt_tokens - usage.cached_tokens


@pytest.mark.parametrize(
    "shapes",
    [
        ({}, {}),
        ({}, {"context_tokens": 4096}),
        ({}, {"context_tokens": 8192, "slots_count": 2, "kv_unified": True}),
        ({"context_tokens": 4096, "slots_count": 2, "kv_unified": True}, {}),
        ({"slots_count": 2}, {"slots_count": 2, "context_tokens": 4096}),
    ],
)
async def test_what_was_computed_survives_a_load_in_another_shape(engine, pocket, paths, clock, shapes):
    before, after = shapes
    async with opened(paths, clock) as prefixes:
        first, answer = await first_turn(engine, pocket, prefixes, **before)
        async with loaded_model(engine, pocket, prefixes, **after) as loaded:
            usage, _ = await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION, answer, FOLLOW_UP))
        assert evaluated(usage) < FEW_TOKENS
        assert usage.cached_tokens >= first.prompt_tokens - FEW_TOKENS
        assert (prefixes.hits_count, prefixes.misses_count) == (1, 0)


async def test_a_number_of_streams_into_which_no_state_fits_is_not_tried(engine, pocket, paths, clock):
    async with opened(paths, clock) as prefixes:
        await first_turn(engine, pocket, prefixes)
        async with loaded_model(engine, pocket, prefixes, slots_count=2) as loaded:
            usage, _ = await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION))
            assert usage.cached_tokens == 0
            await prefixes.close()
            assert prefixes.saved_count == 1


async def test_what_was_computed_survives_a_restart_of_the_daemon(make_engine, paths, clock):
    engine = make_engine()
    pocket = next(entry for entry in await engine.models() if entry.id == "pocket")
    async with opened(paths, clock) as prefixes:
        _, answer = await first_turn(engine, pocket, prefixes)
    await engine.close()
    another = make_engine()
    async with opened(paths, clock) as prefixes, loaded_model(another, pocket, prefixes) as loaded:
        assert prefixes.saved_count == 1
        usage, _ = await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION, answer, FOLLOW_UP))
        assert evaluated(usage) < FEW_TOKENS


async def test_a_checkpoint_survives_the_death_of_the_worker(engine, pocket, paths, clock):
    async with opened(paths, clock, idle_seconds=0.1) as prefixes:
        loaded = await engine.load(pocket, shape(), lambda _: None)
        await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION))
        while not prefixes.saved_count:
            await prefixes.checkpoint()
            await prefixes.close()
        loaded._worker.kill("a test ended it")
        await loaded.wait_gone()
        prefixes.forget(loaded)
        async with loaded_model(engine, pocket, prefixes) as again:
            usage, _ = await serve(prefixes, again, pocket, ask(SYSTEM, QUESTION))
        assert evaluated(usage) < FEW_TOKENS


async def test_the_answer_is_the_same_as_if_it_had_been_computed(engine, pocket, paths, clock):
    async with opened(paths, clock) as prefixes:
        _, answer = await first_turn(engine, pocket, prefixes)
        async with loaded_model(engine, pocket, prefixes) as loaded:
            usage, text = await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION))
        assert evaluated(usage) < FEW_TOKENS
        assert text == answer.parts[0].text


async def test_another_conversation_starts_from_the_system_prompt(engine, pocket, paths, clock):
    async with opened(paths, clock) as prefixes:
        await first_turn(engine, pocket, prefixes)
        async with loaded_model(engine, pocket, prefixes) as loaded:
            usage, _ = await serve(prefixes, loaded, pocket, ask(SYSTEM, FOLLOW_UP))
        assert evaluated(usage) < FEW_TOKENS


async def test_conversations_that_take_turns_on_one_slot_are_computed_once(engine, pocket, paths, clock):
    other = Message(Role.SYSTEM, (TextPart("Speak like a pirate. " * 150),))
    async with opened(paths, clock) as prefixes, loaded_model(engine, pocket, prefixes) as loaded:
        first = [await serve(prefixes, loaded, pocket, ask(system, QUESTION)) for system in (SYSTEM, other)]
        again = [await serve(prefixes, loaded, pocket, ask(system, QUESTION)) for system in (SYSTEM, other)]
    assert all(evaluated(usage) > 500 for usage, _ in first)
    assert all(evaluated(usage) < FEW_TOKENS for usage, _ in again)


async def test_a_raw_prompt_survives(engine, pocket, paths, clock):
    text = "".join(f"Line {number} of a log. " for number in range(120))
    request = GenerationRequest(model="", input=RawPrompt(text), max_reply_tokens=4)
    longer = GenerationRequest(model="", input=RawPrompt(text + "The end."), max_reply_tokens=4)
    async with opened(paths, clock) as prefixes:
        async with loaded_model(engine, pocket, prefixes) as loaded:
            await serve(prefixes, loaded, pocket, request)
        async with loaded_model(engine, pocket, prefixes) as loaded:
            usage, _ = await serve(prefixes, loaded, pocket, longer)
        assert evaluated(usage) < FEW_TOKENS


async def test_another_kv_type_has_its_own_prefixes(engine, pocket, paths, clock):
    q8 = {"key_cache_type": KvCacheType.Q8_0, "value_cache_type": KvCacheType.Q8_0}
    async with opened(paths, clock) as prefixes:
        await first_turn(engine, pocket, prefixes)
        await first_turn(engine, pocket, prefixes, **q8)
        await prefixes.close()
        assert prefixes.saved_count == 2
        async with loaded_model(engine, pocket, prefixes, **q8, context_tokens=4096) as loaded:
            usage, _ = await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION))
        assert evaluated(usage) < FEW_TOKENS
        assert prefixes.misses_count == 0


def flip(path: Path, _paths) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def truncate(path: Path, _paths) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def empty(path: Path, _paths) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty, lambda path, _: path.unlink()])
async def test_a_damaged_file_costs_a_prefill_and_nothing_else(engine, pocket, paths, clock, damage):
    async with opened(paths, clock) as prefixes:
        before, answer = await first_turn(engine, pocket, prefixes)
        await prefixes.close()
        (path,) = paths.prefixes.iterdir()
        damage(path, paths)
        async with loaded_model(engine, pocket, prefixes) as loaded:
            usage, text = await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION))
            assert (usage.cached_tokens, usage.prompt_tokens) == (0, before.prompt_tokens)
            assert text == answer.parts[0].text
            assert not path.exists()
        assert prefixes.hits_count == 0


async def test_the_file_of_another_model_is_refused_even_with_the_right_checksum(
    make_engine, paths, clock, tmp_path
):
    """Two models of the same dimensions: nothing in llama.cpp's own format tells their states apart."""
    sizes = {"layers": 4, "embedding": 192, "heads": 6, "kv_heads": 2, "head_length": 32}
    files = tuple(write_model(tmp_path / f"{seed}.gguf", seed=seed, **sizes) for seed in (1, 2))
    engine = make_engine(files=files)
    mine, other = [entry for entry in await engine.models() if entry.id in {"1", "2"}]
    async with opened(paths, clock) as prefixes:
        await first_turn(engine, mine, prefixes)
        await prefixes.close()
        (path,) = paths.prefixes.iterdir()
        content = path.read_bytes()
        await prefixes.delete("")
        before, _ = await first_turn(engine, other, prefixes)
        await prefixes.close()
        (path,) = paths.prefixes.iterdir()
        path.write_bytes(content)
        (saved,) = prefixes._saved.all
        sha256 = await prefixes._saved._store.digest(path.name)
        object.__setattr__(saved, "sha256", sha256)
        async with loaded_model(engine, other, prefixes) as loaded:
            usage, _ = await serve(prefixes, loaded, other, ask(SYSTEM, QUESTION))
        assert (usage.cached_tokens, usage.prompt_tokens) == (0, before.prompt_tokens)


async def test_files_are_for_the_owner_alone(engine, pocket, paths, clock):
    async with opened(paths, clock) as prefixes:
        await first_turn(engine, pocket, prefixes)
    assert stat.filemode(paths.prefixes.stat().st_mode) == "drwx------"
    assert [stat.filemode(path.stat().st_mode) for path in paths.prefixes.iterdir()] == ["-rw-------"]


async def test_a_discarded_conversation_leaves_no_file(engine, pocket, paths, clock):
    async with opened(paths, clock) as prefixes:
        async with loaded_model(engine, pocket, prefixes) as loaded:
            await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION, discard=True))
        assert list(paths.prefixes.iterdir()) == []


FULL_DISK = """
import asyncio, logging, sys, tempfile, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from autotuned.core.settings import LlamacppSettings, PathSettings
from autotuned.engines.llamacpp.engine import LlamacppEngine
from autotuned.services import saved_prefixes
from tests.engines.conftest import SystemClock
from tests.engines.test_engines_prefixes import SYSTEM, QUESTION, ask, loaded_model, opened, serve

saved_prefixes.RESERVE_BYTES = -1 << 40  # it writes until there is no room
logging.basicConfig(format="%(message)s", stream=sys.stdout)

async def main(prefixes_folder):
    with tempfile.TemporaryDirectory(prefix="at") as root:
        paths = PathSettings(data=prefixes_folder.parent, runtime=Path(root), state=Path(root))
        clock = SystemClock()
        engine = LlamacppEngine(paths=paths, settings=LlamacppSettings(), files=(), clock=clock)
        pocket = next(entry for entry in await engine.models() if entry.id == "pocket")
        async with opened(paths, clock) as prefixes:
            async with loaded_model(engine, pocket, prefixes) as loaded:
                await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION))
                await prefixes.save(loaded)
                usage, _ = await serve(prefixes, loaded, pocket, ask(SYSTEM, QUESTION))
                print("live", usage.cached_tokens > 1000)
            await prefixes.close()
            print("files", len(list(prefixes_folder.iterdir())), prefixes.saved_count)
        await engine.close()

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_costs_the_prefix_and_nothing_else(paths, run_on_disk):
    paths.prefixes.mkdir(mode=0o700)
    printed = run_on_disk(FULL_DISK, paths.prefixes, "size=256k", Path(__file__).parents[2])
    assert printed.splitlines() == ["prefix was not saved", "live True", "files 0 0"]
