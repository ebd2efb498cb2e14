"""Which build runs the models, what is made of programs that cannot, and what is told of it."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from autotuned.core.engine import EngineState, Severity
from autotuned.core.errors import ModelLoadFailed, ShuttingDown
from autotuned.engines.llamacpp import builds as builds_module
from autotuned.engines.llamacpp.builds import AGAIN_SECONDS, GPU_UNUSED, UNUSABLE, Builds
from tests.engines.processes import descendants, until
from tests.engines.shapes import SHAPE, shape
from tests.fakes.llama_server import H100, VERSION, installed, script
from tests.suites.engine_case import TALK, answer, ask


class Time:
    """A clock that stands."""

    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        return self.seconds

    def now(self):
        return self.seconds


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """A folder that is first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def builds(setting="auto", *, gpus=(), clock=None):
    return Builds(setting, engine="llamacpp", clock=clock or Time(), gpus=lambda: gpus)


# Which one runs.


async def test_nothing_is_started_before_a_look(tmp_path, on_path):
    script(on_path / "llama-server", f"touch {tmp_path}/started")
    found = builds()
    assert (found.identity.partition(" ")[0], found.binary, found.findings()) == ("xllamacpp", None, ())
    assert not (tmp_path / "started").exists()
    await found.look()
    assert (tmp_path / "started").exists()


async def test_one_on_the_path_is_used(on_path):
    path = installed(on_path, devices=[H100])
    found = builds(gpus=("NVIDIA H100",))
    await found.look()
    assert found.binary.path == path
    assert (await found.for_load()) is found.binary
    assert found.accelerator == "CUDA0: NVIDIA H100"
    assert found.findings() == ()


async def test_embedded_is_embedded(on_path):
    installed(on_path)
    found = builds("embedded")
    assert await found.for_load() is None


async def test_a_broken_one_on_the_path_is_told_and_left_alone(on_path):
    script(on_path / "llama-server", "echo hello")
    found = builds()
    assert await found.for_load() is None
    (finding,) = found.findings()
    assert (finding.code, finding.severity, finding.subject) == (UNUSABLE, Severity.WARNING, "llamacpp")
    assert (
        finding.text
        == f"{on_path}/llama-server is not a llama-server; the build in the package runs instead."
    )
    assert finding.advice


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "nowhere", r"nowhere cannot be used \(No such file or directory\)"),
        (lambda folder: folder, "is not a program that can be executed"),
        (lambda folder: Path(script(folder / "x", "echo hello")), "is not a llama-server"),
        (lambda folder: installed(folder, lacks=["--cache-ram"]), "is too old: it does not know --cache-ram"),
    ],
    ids=["missing", "folder", "other program", "too old"],
)
async def test_one_that_was_named_is_never_replaced(make_engine, pocket, on_path, make, sentence):
    installed(on_path)
    path = make(on_path.parent)
    engine = make_engine(server=str(path))
    assert engine.status().state is EngineState.STARTING
    with pytest.raises(ModelLoadFailed, match=sentence) as refusal:
        await engine.load(pocket, SHAPE, lambda _: None)
    assert "set llamacpp.server" in refusal.value.message
    status = engine.status()
    assert status.state is EngineState.NOT_INSTALLED
    assert status.detail
    (finding,) = [each for each in status.findings if each.code == UNUSABLE]
    assert finding.severity is Severity.PROBLEM
    assert status.detail in finding.text


async def test_one_may_be_named_without_its_folder(on_path):
    path = installed(on_path, "llama-server-cuda")
    assert (await builds("llama-server-cuda").for_load()).path == path
    with pytest.raises(ModelLoadFailed, match='no program "llama-server-rocm"'):
        await builds("llama-server-rocm").for_load()


async def test_one_that_is_not_executable(tmp_path):
    path = installed(tmp_path)
    path.chmod(0o644)
    with pytest.raises(ModelLoadFailed, match="is not a program that can be executed"):
        await builds(str(path)).for_load()


async def test_it_is_examined_once_for_each_state_of_the_file(tmp_path):
    log = tmp_path / "log"
    path = script(tmp_path / "llama-server", f"echo . >> {log}; echo hello")
    clock = Time()
    found = builds(str(path), clock=clock)
    for _ in range(3):
        await found.look()
    assert log.read_text() == ".\n"
    clock.seconds += AGAIN_SECONDS
    await found.look()
    assert log.read_text() == ".\n.\n"
    installed(tmp_path)
    os.utime(path, ns=(1, 1))
    assert (await found.for_load()).version == VERSION
    assert found.findings() == ()
    path.unlink()
    with pytest.raises(ModelLoadFailed, match="No such file"):
        await found.for_load()


async def test_who_asks_at_the_same_time_shares_one_look(tmp_path):
    log = tmp_path / "log"
    path = script(tmp_path / "llama-server", f"echo . >> {log}; sleep 0.2; echo hello")
    found = builds(str(path))
    await asyncio.gather(*(found.look() for _ in range(5)))
    assert log.read_text() == ".\n"


async def test_a_slow_program_keeps_nobody_waiting(tmp_path, descendants_end):
    found = builds(str(script(tmp_path / "llama-server", "sleep 60")))
    await found.look(patience_seconds=0.05)
    assert not found.is_known
    await found.close()


@pytest.fixture
async def descendants_end():
    """Proof that nothing that was started is left."""
    before = descendants()
    yield
    await until(lambda: descendants() <= before, "nothing is left")


async def test_a_closed_engine_examines_nothing_more(make_engine, pocket, tmp_path):
    engine = make_engine(server=str(script(tmp_path / "llama-server", "sleep 60")))
    load = asyncio.ensure_future(engine.load(pocket, SHAPE, lambda _: None))
    await until(lambda: engine._builds._look is not None, "it is examined")
    await engine.close()
    with pytest.raises(ShuttingDown):
        await load
    await engine.refresh()


async def test_saved_states_do_not_go_from_one_build_to_another(make_engine, pocket, tmp_path, paths):
    saver = make_engine(server=str(installed(tmp_path, "a", version="1 (aaa)")))
    model = await saver.load(pocket, SHAPE, lambda _: None)
    await answer(model, ask("What is the capital of France?"))
    assert (await model.save_prefix(TALK, "one")).tokens_count > 0
    assert await model.restore_prefix(TALK, "one") > 0
    await model.unload()
    for other in (make_engine(server=str(installed(tmp_path, "b", version="1 (bbb)"))), make_engine()):
        model = await other.load(pocket, SHAPE, lambda _: None)
        assert await model.restore_prefix(TALK, "one") == 0
        await model.unload()


# GPUs.


async def test_layers_on_the_gpu_are_those_that_the_program_says(make_engine, pocket, tmp_path):
    engine = make_engine(server=str(installed(tmp_path, devices=[H100], layers=5)))
    await engine.refresh()
    assert engine.status().accelerator == "CUDA0: NVIDIA H100"
    assert engine.capabilities().has_gpu
    for wanted, placed in ((0, 0), (2, 2), (5, 5), (99, 5)):
        model = await engine.load(pocket, shape(gpu_layers_count=wanted), lambda _: None)
        assert model.shape == replace(SHAPE, gpu_layers_count=placed)
        await model.unload()


async def test_a_gpu_that_nothing_uses_is_told(on_path, monkeypatch):
    monkeypatch.setattr(builds_module, "_wheel_has_gpu", lambda: False)
    monkeypatch.setenv("PATH", str(on_path))
    found = builds(gpus=("NVIDIA H100 80GB HBM3",))
    assert found.findings() == ()
    await found.look()
    (finding,) = found.findings()
    assert (finding.code, finding.severity) == (GPU_UNUSED, Severity.WARNING)
    assert finding.text == (
        "llama.cpp leaves the NVIDIA H100 80GB HBM3 unused: its build in the package has no GPU."
    )
    assert "llamacpp.server" in finding.advice
    path = installed(on_path)
    monkeypatch.undo()
    found = builds(str(path), gpus=("NVIDIA H100 80GB HBM3",))
    await found.look()
    (finding,) = found.findings()
    assert f"{path} finds no GPU" in finding.text


async def test_a_gpu_of_the_build_in_the_package_is_used(on_path, monkeypatch):
    monkeypatch.setattr(builds_module, "_wheel_has_gpu", lambda: True)
    found = builds("embedded", gpus=("Apple GPU",))
    await found.look()
    assert found.findings() == ()
    assert found.accelerator == "Metal"


async def test_a_list_waits_for_the_first_look_so_that_a_gpu_is_planned_for(make_engine, tmp_path):
    engine = make_engine(server=str(installed(tmp_path, devices=[H100])))
    assert await engine.models()
    assert engine.capabilities().has_gpu


@pytest.mark.parametrize("setting", ["~nobody-has-this-name/llama-server", "/a\0b/llama-server"])
async def test_a_path_that_is_none_is_told(make_engine, pocket, setting):
    engine = make_engine(server=setting)
    await engine.refresh()
    assert engine.status().state is EngineState.NOT_INSTALLED
    with pytest.raises(ModelLoadFailed, match=r"is no path .*set llamacpp\.server to"):
        await engine.load(pocket, SHAPE, lambda _: None)
