"""A ``llama-server`` in the worker's place: the one on PATH passes the whole suite, a stand-in what a
command line can change. The names of the tests say which program they ran."""

import json
import shutil

import psutil
import pytest

from autotuned.core.errors import ModelLoadFailed
from autotuned.core.plan import KvCacheType
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import fetch
from tests.engines.processes import is_alive
from tests.engines.shapes import SHAPE, shape
from tests.fakes.llama_server import installed
from tests.suites.engine_answers import EngineAnswers
from tests.suites.engine_case import EngineCase, answer, ask, text_of
from tests.suites.engine_life import EngineLife
from tests.suites.engine_prefixes import EnginePrefixes
from tests.suites.engine_suite import EngineSuite

STAND_IN = "stand-in"
REAL = shutil.which("llama-server")
PROGRAMS = [STAND_IN, *([REAL] if REAL else [])]


@pytest.fixture(params=PROGRAMS)
def program(request, tmp_path):
    """The path of a program; each test's name says which."""
    return str(installed(tmp_path)) if request.param == STAND_IN else request.param


@pytest.fixture
async def engine(make_engine, program):
    engine = make_engine(server=program)
    await engine.refresh()
    return engine


async def busy_slots(model):
    """Slots that the worker itself says are at work."""
    _, body = await fetch(Endpoint.unix(model._worker.socket_path), "GET", "/slots", silence_seconds=10.0)
    return sum(slot["is_processing"] for slot in json.loads(body))


@pytest.fixture
async def case(engine, pocket, paths):
    return EngineCase(
        engine=engine,
        entry=pocket,
        shape=SHAPE,
        active_requests=busy_slots,
        prefix_folder=paths.prefixes,
    )


@pytest.mark.parametrize("program", [STAND_IN], indirect=True)
class TestStandIn(EngineAnswers, EngineLife, EnginePrefixes):
    pass


if REAL:

    @pytest.mark.parametrize("program", [REAL], indirect=True)
    class TestLlamaServer(EngineSuite):
        pass


@pytest.mark.parametrize(
    "wanted",
    [
        shape(context_tokens=4096, slots_count=3),
        shape(kv_unified=True, slots_count=2),
        shape(context_tokens=512, batch_tokens=64, micro_batch_tokens=32),
        shape(flash_attention=False),
        shape(host_prompt_cache_bytes=48 << 20),
        shape(memory_mapped=False),
    ],
    ids=["slots", "unified", "batches", "no flash attention", "prompt cache", "read"],
)
async def test_the_shape_is_as_planned(engine, pocket, wanted):
    model = await engine.load(pocket, wanted, lambda _: None)
    assert model.shape == wanted
    log = model._worker.log
    assert log.report["prompt cache"].startswith("enabled" if wanted.host_prompt_cache_bytes else "disabled")
    assert log.report["context checkpoints"] == "disabled"
    assert log.report.get("load_mode", "mmap" if wanted.memory_mapped else "none") == (
        "mmap" if wanted.memory_mapped else "none"
    )
    assert log.report.get("mmap", str(wanted.memory_mapped).lower()) == str(wanted.memory_mapped).lower()
    assert model.footprint.weights_bytes > 2 << 20
    assert model.footprint.kv_cache_bytes == wanted.context_tokens * 1024 * (
        1 if wanted.kv_unified else wanted.slots_count
    )
    assert text_of(await answer(model, ask("What is the capital of France?"))) == (
        "The capital of France is Paris."
    )


async def test_nothing_is_served_beside_requests(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    server = Endpoint.unix(model._worker.socket_path)
    _, body = await fetch(server, "GET", "/props", silence_seconds=10.0)
    props = json.loads(body)
    assert (props["model_alias"], props["endpoint_props"], props["endpoint_metrics"]) == (
        "pocket",
        False,
        False,
    )
    assert props["ui"] is False
    assert (await fetch(server, "GET", "/metrics", silence_seconds=10.0))[0] == 501


async def test_requests_leave_no_trace_in_the_log(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    lines = model._worker.log.lines
    await answer(model, ask("The code word is zuzaba. What is the code word?"))
    assert model._worker.log.lines == lines
    assert any("listening on" in line for line in lines)


async def test_variables_of_the_user_change_nothing(engine, pocket, monkeypatch):
    monkeypatch.setenv("LLAMA_API_KEY", "secret")
    monkeypatch.setenv("LLAMA_ARG_SWA_FULL", "1")
    monkeypatch.setenv("LLAMA_ARG_MODELS_DIR", "/nonexistent")
    model = await engine.load(pocket, SHAPE, lambda _: None)
    assert text_of(await answer(model, ask("What is the capital of France?"))) == (
        "The capital of France is Paris."
    )


async def test_it_does_not_outlive_its_guard(engine, pocket):
    model = await engine.load(pocket, SHAPE, lambda _: None)
    guard = psutil.Process(model.process_id).parent()
    guard.kill()
    assert "killed by signal 9" in await model.wait_gone()
    assert not is_alive(model.process_id)


async def test_what_it_refuses_is_told_in_its_words(engine, pocket):
    wanted = shape(value_cache_type=KvCacheType.Q8_0, flash_attention=False)
    with pytest.raises(ModelLoadFailed, match=r"V cache .*requires flash"):
        await engine.load(pocket, wanted, lambda _: None)


async def test_it_says_which_program_it_is(engine, pocket, program):
    status = engine.status()
    assert status.address == program
    assert status.version == engine.version
    assert engine.version.startswith("llama-server ")
    assert "sha256:" in engine.version
    model = await engine.load(pocket, SHAPE, lambda _: None)
    assert f"--alias\0{pocket.id}\0".encode() in _command_line(model.process_id)


def _command_line(process_id):
    with open(f"/proc/{process_id}/cmdline", "rb") as file:  # noqa: PTH123 - not a disk
        return file.read()
