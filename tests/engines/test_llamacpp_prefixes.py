"""What becomes of saved KV state where the disk is full, and what the seal of a file lets through."""

import textwrap

import pytest

from autotuned.core.errors import StorageFull
from autotuned.core.plan import KvCacheType
from autotuned.core.prefix import WrittenPrefix
from autotuned.engines.prefix_file import PrefixFiles
from tests.engines.shapes import shape

FULL_DISK = textwrap.dedent("""
    import asyncio, sys
    from contextlib import aclosing
    from pathlib import Path
    from autotuned.core.errors import StorageFull
    from autotuned.core.settings import LlamacppSettings, PathSettings
    from autotuned.engines.llamacpp.engine import LlamacppEngine
    from tests.engines.conftest import SystemClock
    from tests.engines.shapes import SHAPE
    from tests.suites.engine_case import answer, ask

    async def main():
        data = Path(sys.argv[1]).parent
        paths = PathSettings(data=data, runtime=data.parent / "run", state=data.parent / "state")
        engine = LlamacppEngine(paths=paths, settings=LlamacppSettings(), files=(), clock=SystemClock())
        pocket = next(entry for entry in await engine.models() if entry.id == "pocket")
        model = await engine.load(pocket, SHAPE, lambda _: None)
        try:
            request = ask("Repeat: " + "la lo lu " * 100, max_reply_tokens=1)
            await answer(model, request)
            try:
                await model.save_prefix("talk", "state.bin")
            except StorageFull as error:
                print(error.message)
            usage = (await answer(model, request))[-1].usage
            print(usage.prompt_tokens - usage.cached_tokens)
        finally:
            await engine.close()

    asyncio.run(main())
""")


def test_a_full_disk_is_told_and_harms_nothing(run_on_disk, paths):
    paths.prefixes.mkdir(mode=0o700)
    message, evaluated = run_on_disk(FULL_DISK, paths.prefixes, "size=256k").splitlines()
    assert message.startswith(f'The KV state could not be written to "{paths.prefixes}"')
    # The worker still has the prompt: it computes the last token again and no other.
    assert evaluated == "1"


def files(folder, digest="a" * 64, engine_version="1", **changes):
    return PrefixFiles(folder, model_digest=digest, shape=shape(**changes), engine_version=engine_version)


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "x").write_bytes(b"state" * 100)
    written = files(tmp_path).finish("x", WrittenPrefix(7, 500))
    assert written == WrittenPrefix(7, (tmp_path / "x").stat().st_size)
    assert written.bytes_count > 500
    return tmp_path


def test_a_sealed_file_is_sound_for_other_sizes_of_the_same_model(sealed):
    assert files(sealed).is_sound("x")
    assert files(sealed, context_tokens=9999, slots_count=4, batch_tokens=32, kv_unified=True).is_sound("x")


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "b" * 64},
        {"engine_version": "2"},
        {"key_cache_type": KvCacheType.Q8_0},
        {"value_cache_type": KvCacheType.Q8_0},
        {"flash_attention": False},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_sealed_file_is_not_sound_for_another_model(sealed, other):
    assert not files(sealed, **other).is_sound("x")


def test_a_file_of_another_length_is_not_sound(sealed):
    data = (sealed / "x").read_bytes()
    for changed in (data[:-1], data[1:], data + b"\0", data[:100], b"", data[:100] + data[101:]):
        (sealed / "x").write_bytes(changed)
        assert not files(sealed).is_sound("x")


def test_a_file_that_is_not_what_the_engine_wrote_is_not_sealed(tmp_path):
    (tmp_path / "x").write_bytes(b"state")
    with pytest.raises(StorageFull, match="shorter than what was written"):
        files(tmp_path).finish("x", WrittenPrefix(7, 500))
    assert (tmp_path / "x").read_bytes() == b"state"
    with pytest.raises(StorageFull, match="No such file"):
        files(tmp_path).finish("y", WrittenPrefix(7, 500))


def test_a_state_without_a_token_leaves_no_file(tmp_path):
    (tmp_path / "x").write_bytes(b"head")
    assert files(tmp_path).finish("x", WrittenPrefix(0, 4)) == WrittenPrefix(0, 0)
    assert not (tmp_path / "x").exists()
