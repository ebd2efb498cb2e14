"""From a registry or a hub to an answer, with the daemon that runs: no restart, and with or without Ollama."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import PATIENCE_SECONDS, RunningDaemon, running_daemon, short_home, spawn_daemon
from tests.e2e.engine_talk import FRANCE, Ctl
from tests.engine_house import House, opened_house
from tests.engines.downloading import content
from tests.fakes.cutting_proxy import cutting_proxy
from tests.fakes.docker_registry import DockerRegistry, docker_registry, require_docker_registry
from tests.fakes.hub import FakeHub
from tests.fakes.ollama.model_store import POCKET, add_model, twin_of_pocket
from tests.fakes.ollama.registry import Registry
from tests.fakes.openai_servers import MLX_LM_IS_INSTALLED, POCKET_FOLDER

LARGE_BYTES = 40 << 20
TWIN = "lab/twin:latest"
LARGE = "lab/large:latest"
HUB_GGUF = "someone/Twin-GGUF"
HUB_MLX = "mlx-community/Pocket-bf16"


@pytest.fixture(scope="module")
def registry() -> Iterator[DockerRegistry]:
    """Has a twin of the pocket model with a template of its own, and a large file."""
    require_docker_registry()
    with short_home() as folder, docker_registry(folder) as running:
        store, gguf = folder / "store", twin_of_pocket(folder / "twin.gguf")
        add_model(store, TWIN, gguf=gguf, template=None, parameters={"temperature": 0.1})
        running.push(store, TWIN)
        large = folder / "large.gguf"
        large.write_bytes(POCKET.read_bytes() + content(LARGE_BYTES))
        running.push_file(large, LARGE)
        yield running


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running, short_home() as folder:
        gguf = twin_of_pocket(folder / "twin.gguf", more_bytes=64)
        running.add(HUB_GGUF, {"Twin-Q8_0.gguf": gguf.read_bytes(), "README.md": b"# Twin\n"})
        files = {path.name: path.read_bytes() for path in POCKET_FOLDER.iterdir() if path.is_file()}
        running.add(HUB_MLX, files)
        yield running


@pytest.fixture(scope="module")
def daemon(registry, hub) -> Iterator[RunningDaemon]:
    with running_daemon(
        AUTOTUNE_PULL_REGISTRY_URL=registry.url, AUTOTUNE_PULL_HUGGINGFACE_URL=hub.url
    ) as running:
        yield running


@pytest.fixture
def ctl(daemon) -> Ctl:
    return Ctl(daemon)


def ids(ctl: Ctl) -> set[str]:
    return {model["id"] for model in ctl.json("ls")["models"]}


def say(ctl: Ctl, model: str) -> str:
    return ctl.json("chat", FRANCE[0], "-m", model, "--temperature", "0")["text"]


def test_a_model_of_a_registry_is_listed_and_chats_at_once_and_goes_again(ctl):
    assert TWIN not in ids(ctl)
    done = ctl("pull", TWIN)
    assert done.returncode == 0, done.stderr
    assert f"{TWIN} is here; talk to it:" in done.stdout
    assert TWIN in ids(ctl)
    assert say(ctl, TWIN) == FRANCE[1]
    again = ctl("pull", TWIN)
    assert f"{TWIN} was here already" in again.stdout
    gone = ctl.json("rm", TWIN, "--yes")
    assert int(gone["freed_bytes"]) >= POCKET.stat().st_size
    assert TWIN not in ids(ctl)
    assert list((ctl.daemon.home / "data" / "registry" / "blobs").iterdir()) == []


def test_a_file_of_hugging_face_is_listed_and_chats_at_once_and_goes_again(ctl):
    done = ctl("pull", f"hf:{HUB_GGUF}:Q8_0")
    assert done.returncode == 0, done.stderr
    assert "Twin-Q8_0" in ids(ctl)
    assert say(ctl, "Twin-Q8_0") == FRANCE[1]
    assert ctl("rm", "Twin-Q8_0", "--yes").returncode == 0
    assert "Twin-Q8_0" not in ids(ctl)


@pytest.mark.skipif(not MLX_LM_IS_INSTALLED, reason="mlx-lm is not installed")
def test_an_mlx_repository_is_listed_and_chats_at_once(ctl):
    done = ctl("mlx", "pull", f"hf:{HUB_MLX}")
    assert done.returncode == 0, done.stderr
    assert HUB_MLX in {model["id"] for model in ctl.json("mlx", "list")["models"]}
    assert say(ctl, HUB_MLX) == FRANCE[1]
    assert ctl("rm", HUB_MLX, "--yes").returncode == 0


def test_what_does_not_exist_is_told_with_where_it_was_looked_for(ctl, registry):
    done = ctl("pull", "lab/none:latest")
    assert done.returncode == 4
    assert f'127.0.0.1:{registry.port} has no model "lab/none:latest"' in done.stderr


def test_the_packaged_model_stays(ctl):
    done = ctl("rm", "pocket", "--yes")
    assert done.returncode != 0
    assert "pocket" in ids(ctl)


def test_ctrl_c_keeps_what_came_and_the_same_command_goes_on(registry):
    with (
        cutting_proxy(registry.port) as slow,
        running_daemon(AUTOTUNE_PULL_REGISTRY_URL=slow.url) as daemon,
    ):
        ctl = Ctl(daemon)
        slow.hold_at = LARGE_BYTES // 2
        with ctl.terminal("pull", LARGE) as terminal:
            wait_for(lambda: part_bytes(daemon) > LARGE_BYTES // 4)
            terminal.sendintr()
            terminal.expect(f"Go on with: autotunectl pull {LARGE}")
            terminal.wait()
            assert terminal.exitstatus == 130
        wait_for(lambda: not workers(daemon))
        kept = part_bytes(daemon)
        assert kept > LARGE_BYTES // 4
        slow.hold_at = None
        assert fetched_bytes(ctl("pull", LARGE, "--json")) <= LARGE_BYTES + POCKET.stat().st_size - kept


def test_a_daemon_that_is_killed_leaves_no_worker_and_the_next_one_goes_on(registry):
    with cutting_proxy(registry.port) as slow, short_home() as home:
        daemon = spawn_daemon(home, AUTOTUNE_PULL_REGISTRY_URL=slow.url)
        slow.hold_at = LARGE_BYTES // 2
        ctl = Ctl(daemon)
        with ctl.terminal("pull", LARGE):
            wait_for(lambda: part_bytes(daemon) > LARGE_BYTES // 4)
            left = workers(daemon)
            assert left
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait(PATIENCE_SECONDS)
        assert psutil.wait_procs(left, timeout=PATIENCE_SECONDS)[1] == []
        kept = part_bytes(daemon)
        slow.hold_at = None
        following = spawn_daemon(home, AUTOTUNE_PULL_REGISTRY_URL=slow.url)
        try:
            assert (
                fetched_bytes(Ctl(following)("pull", LARGE, "--json"))
                <= LARGE_BYTES + POCKET.stat().st_size - kept
            )
            blob = next(path for path in (home / "data/registry/blobs").iterdir())
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name.removeprefix("sha256-")
        finally:
            following.stop()


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with short_home() as folder, opened_house(folder, engines=("ollama",)) as (opened, _):
        yield opened


def test_with_ollama_there_it_pulls_and_deletes_for_us(house):
    with (
        short_home() as folder,
        Registry(folder) as registry,
        running_daemon(**house.environment) as daemon,
    ):
        add_model(registry.models, TWIN, gguf=twin_of_pocket(folder / "twin.gguf", more_bytes=96))
        name = f"{registry.host}/{TWIN}"
        ctl = Ctl(daemon)
        done = ctl("pull", name)
        assert done.returncode == 0, done.stderr
        model = next(model for model in ctl.json("ls")["models"] if model["id"] == name)
        assert model["engine"] == "ollama"
        assert say(ctl, name) == FRANCE[1]
        assert ctl("rm", name, "--yes").returncode == 0
        assert name not in ids(ctl)


def test_the_hardware_and_what_suits_it(ctl):
    shown = ctl("hardware")
    assert shown.returncode == 0, shown.stderr
    assert "a model may take" in shown.stdout
    hardware = ctl.json("hardware")
    assert int(hardware["hardware"]["memory_total_bytes"]) > 0
    picks = ctl.json("recommend", "--for", "coding")["recommendations"]
    assert 1 <= len(picks) <= 3
    assert picks[0]["pull_name"] in ctl("recommend", "--for", "coding").stdout


def test_without_a_name_it_shows_what_suits(ctl):
    picks = ctl.json("recommend")["recommendations"]
    shown = ctl("pull")
    assert all(pick["pull_name"] in shown.stdout for pick in picks)
    assert "Nobody is there to choose; name one of them" in shown.stderr


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def fetched_bytes(done) -> int:
    """What the last line of a pull tells."""
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout.splitlines()[-1])["fetched_bytes"])


def part_bytes(daemon: RunningDaemon) -> int:
    parts = (daemon.home / "data" / "registry" / "blobs").glob("*.part")
    return sum(size(path) for path in parts)


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def workers(daemon: RunningDaemon) -> list[psutil.Process]:
    """The processes that download."""
    children = psutil.Process(daemon.process.pid).children(recursive=True)
    return [child for child in children if any("downloads/worker.py" in word for word in child.cmdline())]
