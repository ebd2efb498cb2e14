"""Loads that cannot succeed end with one clear sentence and leave nothing."""

import asyncio
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from autotuned.core.errors import ModelInvalid, ModelLoadFailed, ShuttingDown
from autotuned.core.model import LoadPhase
from autotuned.core.plan import KvCacheType
from autotuned.core.settings import PathSettings
from autotuned.engines.llamacpp import engine as engine_module
from autotuned.engines.llamacpp import readiness
from autotuned.engines.llamacpp.discovery import POCKET
from autotuned.engines.process import SOCKET_PATH_BYTES
from tests.engines.shapes import SHAPE, shape


def changed(old: bytes, new: bytes) -> bytes:
    """The pocket model with the first ``old`` replaced by as many bytes."""
    assert len(old) == len(new)
    content = POCKET.read_bytes()
    assert old in content
    return content.replace(old, new, 1)


async def entry_of(engine, name):
    return next(entry for entry in await engine.models() if entry.id == name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a GGUF file"),
        (b"hello" * 1000, "is not a GGUF file"),
        (POCKET.read_bytes()[:5000], "is cut off inside its header"),
        (POCKET.read_bytes()[:-1], "is incomplete"),
        (POCKET.read_bytes()[:1_000_000], "is incomplete"),
    ],
    ids=["empty", "junk", "header", "one byte", "half"],
)
async def test_a_damaged_file_is_listed_with_its_problem_and_not_loaded(engine, paths, content, sentence):
    (paths.data / "models" / "damaged.gguf").write_bytes(content)
    entry = await entry_of(engine, "damaged")
    assert entry.facts is None
    assert sentence in entry.problem
    with pytest.raises(ModelInvalid) as refusal:
        await engine.load(entry, SHAPE, lambda _: None)
    assert refusal.value.message == entry.problem


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (changed(b"qwen2", b"qwenX"), "unknown pre-tokenizer type: 'qwenX'"),
        (changed(b"blk.3.ffn_up.weight", b"blk.3.ffn_uq.weight"), "'blk.3.ffn_up.weight' not found"),
    ],
    ids=["tokenizer", "tensor"],
)
async def test_what_only_the_engine_can_see_is_told_in_its_words(engine, paths, content, sentence):
    (paths.data / "models" / "strange.gguf").write_bytes(content)
    entry = await entry_of(engine, "strange")
    assert entry.problem == ""
    with pytest.raises(ModelLoadFailed, match=sentence):
        await engine.load(entry, SHAPE, lambda _: None)


async def test_a_file_that_is_cut_off_after_it_was_listed(engine, paths):
    path = paths.data / "models" / "shrinks.gguf"
    path.write_bytes(POCKET.read_bytes())
    entry = await entry_of(engine, "shrinks")
    path.write_bytes(POCKET.read_bytes()[:1_000_000])
    with pytest.raises(ModelLoadFailed, match="not within the file bounds"):
        await engine.load(entry, SHAPE, lambda _: None)
    path.unlink()
    with pytest.raises(ModelLoadFailed, match="No such file"):
        await engine.load(entry, SHAPE, lambda _: None)


async def test_a_shape_that_the_engine_refuses(engine, pocket):
    wanted = shape(value_cache_type=KvCacheType.Q8_0, flash_attention=False)
    with pytest.raises(ModelLoadFailed, match="quantized V cache requires flash_attn"):
        await engine.load(pocket, wanted, lambda _: None)


async def test_a_shape_that_the_engine_does_not_apply(engine, pocket):
    with pytest.raises(ModelLoadFailed, match=r"8192.* context tokens where 16384 was planned"):
        await engine.load(pocket, shape(context_tokens=16384), lambda _: None)


async def test_a_socket_path_that_is_too_long_names_the_way_out(make_engine, pocket, clock):
    with tempfile.TemporaryDirectory() as folder:
        runtime = Path(folder) / ("x" * SOCKET_PATH_BYTES)
        runtime.mkdir()
        engine = make_engine()
        engine._paths = PathSettings(data=runtime, runtime=runtime, state=runtime)
        with pytest.raises(ModelLoadFailed, match="AUTOTUNE_RUNTIME_DIR") as refusal:
            await engine.load(pocket, SHAPE, lambda _: None)
        assert str(runtime) in refusal.value.metadata["path"]


async def test_the_longest_socket_path_works(make_engine, pocket):
    with tempfile.TemporaryDirectory(prefix="at") as folder:
        name = "x" * (SOCKET_PATH_BYTES - 1 - len(folder) - len("//w-01234567.sock"))
        runtime = Path(folder) / name
        runtime.mkdir()
        engine = make_engine()
        engine._paths = replace(engine._paths, runtime=runtime)
        model = await engine.load(pocket, SHAPE, lambda _: None)
        (path,) = runtime.iterdir()
        assert len(os.fsencode(path)) == SOCKET_PATH_BYTES - 1
        await model.unload()


async def test_a_runtime_folder_that_is_not_there(make_engine, pocket, paths):
    engine = make_engine()
    engine._paths = replace(engine._paths, runtime=paths.runtime / "gone")
    with pytest.raises(ModelLoadFailed, match="bind"):
        await engine.load(pocket, SHAPE, lambda _: None)


async def test_a_worker_program_that_is_not_there(engine, pocket, monkeypatch):
    monkeypatch.setattr(engine_module, "WORKER", Path("/nonexistent/worker.py"))
    with pytest.raises(ModelLoadFailed, match=r"exited with status 2|No such file"):
        await engine.load(pocket, SHAPE, lambda _: None)


async def test_an_interpreter_that_is_not_there(engine, pocket, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    with pytest.raises(ModelLoadFailed, match="cannot be started"):
        await engine.load(pocket, SHAPE, lambda _: None)


async def test_a_worker_that_is_killed_in_mid_load(engine, pocket):
    worker = None

    def kill(progress):
        if progress.phase is LoadPhase.READING_WEIGHTS:
            nonlocal worker
            (worker,) = engine._workers
            os.kill(worker.process_id, signal.SIGKILL)

    with pytest.raises(ModelLoadFailed, match="killed by signal 9"):
        await engine.load(pocket, shape(context_tokens=512 * 1024), kill)


@pytest.fixture
def worker_program(tmp_path, monkeypatch):
    """``worker_program(text)`` puts another program in the worker's place."""

    def put(text):
        path = tmp_path / "worker.py"
        path.write_text(text)
        monkeypatch.setattr(engine_module, "WORKER", path)

    return put


async def test_a_load_that_does_not_move_is_given_up(make_engine, pocket, monkeypatch, worker_program):
    monkeypatch.setattr(readiness, "POLL_SECONDS", 0.02)
    worker_program("import signal; print('constructing llama_context', flush=True); signal.pause()")
    engine = make_engine(load_timeout_seconds=0.2)
    with pytest.raises(ModelLoadFailed, match=r"no progress for 0\.2 seconds \(allocating\)"):
        await engine.load(pocket, SHAPE, lambda _: None)


async def test_a_load_that_writes_is_not_given_up(make_engine, pocket, monkeypatch, worker_program):
    monkeypatch.setattr(readiness, "POLL_SECONDS", 0.02)
    worker_program(
        "import sys, time\n"
        "for _ in range(15): time.sleep(0.05); print('.', flush=True)\n"
        "sys.exit('error: it was long, but in vain')"
    )
    engine = make_engine(load_timeout_seconds=0.4)
    with pytest.raises(ModelLoadFailed, match="it was long, but in vain"):
        await engine.load(pocket, SHAPE, lambda _: None)


async def test_a_worker_that_says_that_it_listens_and_does_not(
    make_engine, pocket, monkeypatch, worker_program
):
    monkeypatch.setattr(readiness, "POLL_SECONDS", 0.02)
    worker_program("import signal; print('listening on nothing', flush=True); signal.pause()")
    engine = make_engine(load_timeout_seconds=0.2)
    asked = []
    monkeypatch.setattr(readiness, "fetch", counting(readiness.fetch, asked))
    with pytest.raises(ModelLoadFailed, match=r"no progress for 0\.2 seconds"):
        await engine.load(pocket, SHAPE, lambda _: None)
    assert len(asked) < 50


def counting(function, calls):
    async def call(*arguments, **options):
        calls.append(arguments)
        return await function(*arguments, **options)

    return call


async def test_a_worker_that_dies_before_it_described_itself(engine, pocket, monkeypatch):
    async def kill_before_props(path, method, target, **options):
        if target == "/props":
            (worker,) = engine._workers
            os.kill(worker.process_id, signal.SIGKILL)
        return await fetch(path, method, target, **options)

    fetch = readiness.fetch
    monkeypatch.setattr(readiness, "fetch", kill_before_props)
    phases = []
    with pytest.raises(ModelLoadFailed, match="killed by signal 9"):
        await engine.load(pocket, SHAPE, lambda progress: phases.append(progress.phase))
    assert LoadPhase.READY not in phases


async def test_phases_that_were_too_short_to_be_seen_are_told(engine, pocket, worker_program):
    worker_program("print('loading model'); print('constructing llama_context'); raise SystemExit(3)")
    phases = []
    with pytest.raises(ModelLoadFailed, match="exited with status 3"):
        await engine.load(pocket, SHAPE, lambda progress: phases.append(progress.phase))
    assert phases == [LoadPhase.STARTING, LoadPhase.READING_WEIGHTS, LoadPhase.ALLOCATING]


async def test_a_progress_callback_that_fails_ends_the_load(engine, pocket):
    def fail(progress):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await engine.load(pocket, SHAPE, fail)


async def test_closing_the_engine_ends_a_load(engine, pocket):
    allocating = asyncio.Event()

    def notice(progress):
        if progress.phase is LoadPhase.ALLOCATING:
            allocating.set()

    load = asyncio.create_task(engine.load(pocket, shape(context_tokens=512 * 1024), notice))
    await allocating.wait()
    await engine.close()
    with pytest.raises(ShuttingDown):
        await load


async def test_closing_the_engine_before_the_worker_exists_ends_a_load(engine, pocket):
    load = asyncio.create_task(engine.load(pocket, SHAPE, lambda _: None))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(ShuttingDown):
        await load


async def test_a_closed_engine_loads_nothing(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    await engine.close()
    assert await model.wait_gone() == "the engine was closed"
    with pytest.raises(ShuttingDown):
        await engine.load(pocket, SHAPE, lambda _: None)
    await engine.close()
