"""MLX workers that die, hang, cannot load, or are given up; and an MLX that is not there."""

import asyncio
import json
import os
import shutil
import signal
from contextlib import aclosing
from dataclasses import replace

import pytest

from autotuned.core.chat import RawPrompt, ToolChoice, ToolChoiceMode
from autotuned.core.engine import EngineState
from autotuned.core.errors import EngineUnreachable, FieldInvalid, ModelLoadFailed, Unsupported
from autotuned.core.generation import TextDelta
from autotuned.core.model import LoadPhase
from autotuned.core.plan import KvCacheType
from tests.engines.mlx_engines import mlx_engine
from tests.engines.mlx_paths import POCKET
from tests.engines.processes import descendants, descriptors, is_alive, until
from tests.engines.shapes import shape
from tests.suites.engine_case import TALK, WEATHER, answer, ask, text_of

pytest.importorskip("mlx_lm", reason="mlx-lm is not installed")

SHAPE = shape(memory_mapped=False)


@pytest.fixture(scope="module")
async def started():
    async with mlx_engine(silence_timeout_seconds=1.0) as found:
        yield found


@pytest.fixture(scope="module")
async def model(started):
    """One for all tests that leave it alive."""
    engine, _ = started
    model = await engine.load((await engine.models())[0], SHAPE, lambda _: None)
    yield model
    await model.unload()


async def test_what_dies_or_hangs_says_so_and_leaves_nothing(started):
    """One load for each end; descriptors and processes are those of before."""
    engine, paths = started
    entry = (await engine.models())[0]
    before = descriptors(), descendants()

    # In mid-stream.
    model = await engine.load(entry, SHAPE, lambda _: None)
    async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
        os.kill(model.process_id, signal.SIGKILL)
        with pytest.raises(EngineUnreachable, match="killed by signal 9") as failure:
            async for _ in events:
                pass
    assert failure.value.served
    assert "killed by signal 9" in await model.wait_gone()

    # Before the head of an answer: the request was never taken.
    model = await engine.load(entry, SHAPE, lambda _: None)
    os.kill(model.process_id, signal.SIGSTOP)
    request = asyncio.create_task(answer(model, ask("Hello!")))
    await asyncio.sleep(0.1)
    os.kill(model.process_id, signal.SIGKILL)
    with pytest.raises(EngineUnreachable, match="killed by signal 9") as failure:
        await request
    assert not failure.value.served

    # It hangs: silence is the sign.
    model = await engine.load(entry, SHAPE, lambda _: None)
    async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as events:
        await anext(events)
        os.kill(model.process_id, signal.SIGSTOP)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(EngineUnreachable, match="silent"):
            async for _ in events:
                pass
        assert loop.time() - began < 5.0
    await model.wait_gone()
    await until(lambda: not is_alive(model.process_id), "the worker is gone")

    await until(lambda: (descriptors(), descendants()) == before, "nothing is left")
    assert list(paths.runtime.iterdir()) == []


async def test_answers_and_cancels_leave_no_descriptor(model):
    await answer(model, ask("Hello!"))
    await asyncio.sleep(0.05)  # a connection that was closed ends with the loop's next rounds
    before = descriptors()
    for number in range(20):
        async with aclosing(model.generate(ask("Hello!"), TALK)) as events:
            async for _ in events:
                if number % 3 == 0:
                    break
        await model.count_tokens("hello")
    await until(lambda: descriptors() == before, "no descriptor is left")
    status = await model.status()
    assert status.active_bytes > 4 << 20
    assert status.cached_bytes == 0


async def test_a_cancel_while_waiting_starts_nothing(model):
    async with aclosing(model.generate(ask("Count from 1 to 79."), TALK)) as first:
        await anext(first)
        waiting = asyncio.create_task(answer(model, ask("Hello!"), "other"))
        await asyncio.sleep(0.05)
        assert (await model.status()).active_requests_count == 2
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert text_of(await answer(model, ask("Hello!"))) == "Hello! How can I help you?"


async def test_what_mlx_cannot_do_is_refused(started, model):
    engine, _ = started
    entry = (await engine.models())[0]
    mixed = replace(SHAPE, key_cache_type=KvCacheType.Q8_0)
    with pytest.raises(ModelLoadFailed, match="one type"):
        await engine.load(entry, mixed, lambda _: None)
    bias = replace(ask("x").sampling, logit_bias=((1 << 20, 1.0),))
    with pytest.raises(FieldInvalid, match="logit_bias"):
        await answer(model, ask("Hello!", sampling=bias))
    with pytest.raises(FieldInvalid, match="empty"):
        await answer(model, replace(ask("x"), input=RawPrompt("")))
    with pytest.raises(Unsupported, match="together with tools"):
        await answer(model, ask("Hello!", tools=(WEATHER,), top_logprobs_count=1))
    required = ToolChoice(ToolChoiceMode.REQUIRED)
    events = await answer(model, ask("Hello!", tools=(WEATHER,), tool_choice=required, max_reply_tokens=60))
    assert not text_of(events)


async def test_sampling_fields_have_their_effect(model):
    greedy = ask("Tell me a story.", max_reply_tokens=24)

    def drawn(**fields):
        return replace(greedy, sampling=replace(greedy.sampling, **fields))

    plain = text_of(await answer(model, greedy))
    for fields in (
        {"temperature": 3.0, "top_k": 1},
        {"temperature": 3.0, "min_p": 1.0},
        {"temperature": 3.0, "top_p": 0.0},
        {"repeat_penalty": 1.0},
    ):
        assert text_of(await answer(model, drawn(**fields))) == plain, fields
    for fields in ({"repeat_penalty": 3.0}, {"presence_penalty": 9.0}, {"frequency_penalty": 9.0}):
        assert text_of(await answer(model, drawn(**fields))) != plain, fields


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "banana"}, "banana"),
        ({"hidden_size": 64}, "could not load"),
    ],
)
async def test_a_model_that_mlx_cannot_load_says_why(tmp_path, changes, message):
    folder = tmp_path / "broken"
    shutil.copytree(POCKET, folder)
    configuration = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(configuration | changes))
    async with mlx_engine(folder) as (engine, paths):
        with pytest.raises(ModelLoadFailed, match=message):
            await engine.load((await engine.models())[0], SHAPE, lambda _: None)
        assert list(paths.runtime.iterdir()) == []


async def test_a_load_without_progress_is_given_up():
    async with mlx_engine(load_timeout_seconds=0.6) as (engine, paths):
        entry = (await engine.models())[0]
        before = descendants()

        def stop(progress):
            if progress.phase is LoadPhase.STARTING:
                asyncio.get_running_loop().call_later(0.3, stop_worker)

        def stop_worker():
            for process in descendants() - before:
                os.kill(process, signal.SIGSTOP)

        with pytest.raises(ModelLoadFailed, match="no progress"):
            await asyncio.wait_for(engine.load(entry, SHAPE, stop), 60)
        assert list(paths.runtime.iterdir()) == []


async def test_mlx_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("autotuned.engines.mlx.engine.PACKAGE", "mlx-lm-that-nobody-has")
    async with mlx_engine() as (engine, _):
        status = engine.status()
        assert status.state is EngineState.NOT_INSTALLED
        assert [finding.advice for finding in status.findings] == ['pip install "autotuned[mlx]"']
        assert engine.version == ""
        assert await engine.models() == ()
        monkeypatch.setattr("autotuned.engines.mlx.engine.PACKAGE", "mlx-lm")
        await engine.refresh()
        assert engine.status().state is EngineState.READY
        assert engine.version.startswith("mlx-lm ")
        assert len(await engine.models()) == 1


async def test_mlx_that_is_off_has_no_models():
    async with mlx_engine(mode="off") as (engine, _):
        assert engine.status().state is EngineState.OFF
        assert await engine.models() == ()
        assert await engine.residents() == ()
