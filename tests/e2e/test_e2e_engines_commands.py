"""What autotunectl says of engines and their models, while servers die, hang, and are used by others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.conftest import RunningDaemon, running_daemon, short_home
from tests.e2e.engine_talk import FRANCE, Ctl
from tests.engine_house import Background, House, opened_house
from tests.fakes.ollama.asking import chat

# A look at a hung server takes 2 seconds; starting the command on a busy machine takes longer.
LOOK_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Setting:
    """A daemon with servers, and the command line beside it."""

    house: House
    beside: Background
    daemon: RunningDaemon

    @property
    def ctl(self) -> Ctl:
        return Ctl(self.daemon)

    def engine(self, name: str) -> dict[str, Any]:
        """What ``autotunectl engines --json`` says of one."""
        engines = self.ctl.json("engines")["engines"]
        (found,) = [each for each in engines if each["name"] == name]
        return dict(found)

    def findings(self, subject: str) -> list[dict[str, Any]]:
        """What ``autotunectl doctor --json`` says of one."""
        return [each for each in self.ctl.json("doctor")["findings"] if each["subject"] == subject]

    def running(self) -> set[tuple[str, str, bool]]:
        """Engine and state of what ``autotunectl ps`` shows, and whether others loaded it."""
        return {
            (each["engine"], each["state"], each["loaded_by_others"])
            for each in self.ctl.json("ps")["running_models"]
        }

    def wait_until_ready(self, name: str) -> None:
        """Waits until the daemon has seen that it is back."""
        deadline = time.monotonic() + LOOK_SECONDS
        while (state := self.engine(name)["state"]) != "ready":
            assert time.monotonic() < deadline, f"{name} is {state}"


@pytest.fixture(scope="module")
def setting() -> Iterator[Setting]:
    with (
        short_home() as folder,
        opened_house(folder, engines=("llamacpp", "ollama", "lmstudio", "lab")) as (house, beside),
        running_daemon(**house.environment) as daemon,
    ):
        yield Setting(house, beside, daemon)


def test_engines_shows_each_as_it_is(setting):
    shown = {each["name"]: each for each in setting.ctl.json("engines")["engines"]}
    assert {name: each["state"] for name, each in shown.items()} == {
        "llamacpp": "ready",
        "mlx": "off",
        "ollama": "ready",
        "lmstudio": "ready",
        "lab": "ready",
    }
    for name in ("ollama", "lmstudio", "lab"):
        assert shown[name]["address"].startswith("http://127.0.0.1:")
    assert shown["ollama"]["version"] == "0.33.3"
    assert "tool-choice" in shown["ollama"]["missing_features"]
    assert "tool-choice" in shown["lab"]["features"]
    assert shown["lab"]["models_count"] == 1
    text = setting.ctl("engines").stdout
    assert "mlx is off: mlx.mode is off.\n" in text
    assert setting.ctl("doctor").stdout == "Nothing is wrong.\n"


def test_ls_shows_where_each_model_runs(setting):
    rows = {line.split()[0]: line for line in setting.ctl("ls").stdout.splitlines()}
    assert rows["pocket"].endswith("llamacpp, ollama")
    assert rows["lab/pocket"].endswith(" lab")
    assert " elsewhere " in rows["lab/pocket"]
    assert rows["lmstudio/pocket"].endswith(" lmstudio")
    of_ollama = setting.ctl.json("ls", "--engine", "ollama")["models"]
    assert [(model["id"], model["engine"]) for model in of_ollama] == [("pocket", "ollama")]


def test_what_another_program_loaded_is_shown_and_can_be_unloaded(setting):
    setting.beside.do(chat(setting.house.ollama))
    load = setting.house.lmstudio.client.post("/api/v1/models/load", json={"model": "pocket"})
    setting.beside.do(load).raise_for_status()
    assert setting.engine("ollama")["residents"]
    assert setting.running() == {("ollama", "ready", True), ("lmstudio", "ready", True)}
    assert setting.ctl("unload", "pocket", "--engine", "ollama").stdout == "Unloaded pocket.\n"
    assert setting.beside.do(setting.house.ollama.page())["runners"] == []
    assert setting.running() == {("lmstudio", "ready", True)}
    assert setting.ctl("unload", "lmstudio/pocket").stdout == "Unloaded lmstudio/pocket.\n"
    assert setting.beside.do(setting.house.lmstudio.state())["instances"] == []
    assert setting.running() == set()


def test_what_the_daemon_loaded_is_unloaded_from_one_engine_alone(setting):
    for engine in ("llamacpp", "ollama"):
        answer = setting.ctl.json("chat", FRANCE[0], "-m", "pocket", "--engine", engine, "--temperature", "0")
        assert (answer["text"], answer["engine"]) == (FRANCE[1], engine)
    assert setting.engine("ollama")["residents"]
    assert setting.running() == {("llamacpp", "ready", False), ("ollama", "ready", False)}
    setting.ctl("unload", "pocket", "--engine", "ollama")
    assert setting.running() == {("llamacpp", "ready", False)}
    setting.ctl("unload", "pocket")
    assert setting.running() == set()
    assert setting.ctl("unload", "pocket").stdout == "pocket was not in memory.\n"


def test_a_server_that_died_is_told_and_its_return_too(setting):
    lab = setting.house.places["lab"]
    setting.house.server_process("lab").kill()
    setting.beside.do(lab.server.process.wait())
    gone = setting.engine("lab")
    assert (gone["state"], gone["models_count"]) == ("unreachable", 0)
    assert "cannot be reached" in gone["detail"]
    (finding,) = setting.findings("lab")
    assert finding["severity"] == "warning"
    assert finding["advice"]
    refused = setting.ctl("chat", "-m", "lab/pocket", "hi")
    assert (refused.returncode, refused.stdout) == (7, "")
    assert refused.stderr.startswith("The engine lab cannot be used: ")
    assert "lab/pocket" not in setting.ctl("ls").stdout
    assert "lab offers no model: it is unreachable" in setting.ctl("ls", "--engine", "lab").stderr
    setting.beside.do(lab.start())
    setting.wait_until_ready("lab")
    assert setting.findings("lab") == []
    answer = setting.ctl.json("chat", FRANCE[0], "-m", "lab/pocket", "--temperature", "0")
    assert answer["text"] == FRANCE[1]


@pytest.mark.parametrize("name", ["ollama", "lmstudio"])
def test_a_server_that_hangs_is_told_in_time_and_holds_up_no_other(setting, name):
    process = setting.house.server_process(name)
    process.suspend()
    try:
        began_at = time.monotonic()
        hung = setting.engine(name)
        assert time.monotonic() - began_at < LOOK_SECONDS
        assert (hung["state"], hung["models_count"]) == ("unreachable", 0)
        assert "answer" in hung["detail"]
        (finding,) = setting.findings(name)
        assert finding["severity"] == "warning"
        answer = setting.ctl.json("chat", FRANCE[0], "-m", "pocket", "--temperature", "0")
        assert (answer["text"], answer["engine"]) == (FRANCE[1], "llamacpp")
    finally:
        process.resume()
    setting.wait_until_ready(name)
    assert setting.findings(name) == []
    named = ("-m", "pocket", "--engine", name)
    answer = setting.ctl.json("chat", FRANCE[0], *named, "--temperature", "0")
    assert (answer["text"], answer["engine"]) == (FRANCE[1], name)
