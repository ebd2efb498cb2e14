"""One file that Ollama downloaded is one model with two places: llama.cpp runs it, Ollama runs it when asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import RunningDaemon, running_daemon, short_home
from tests.e2e.engine_talk import FRANCE, Ctl
from tests.engine_house import House, opened_house

MODEL = "pocket-2:latest"
"""Its bytes differ from those of the model in the package, so it is nowhere but in Ollama's store."""


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with short_home() as folder, opened_house(folder, engines=("ollama",), copies_count=2) as (opened, _):
        yield opened


@pytest.fixture(scope="module")
def daemon(house: House) -> Iterator[RunningDaemon]:
    store = {"AUTOTUNE_STORES_OLLAMA": str(house.ollama.models)}
    with running_daemon(**(house.environment | store)) as running:
        yield running


@pytest.fixture
def ctl(daemon: RunningDaemon) -> Ctl:
    return Ctl(daemon)


def test_it_is_listed_once_with_both_places(ctl, house):
    models = ctl.json("ls")["models"]
    named = [model for model in models if MODEL in {model["id"], *model["aliases"]}]
    assert len(named) == 1, models
    (model,) = named
    assert model["engine"] == "llamacpp"
    assert [place["engine"] for place in model["places"]] == ["llamacpp", "ollama"]
    assert model["places"][0]["path"].startswith(str(house.ollama.models / "blobs"))
    assert len({model["id"] for model in models}) == len(models) == 2
    row = next(line for line in ctl("ls").stdout.splitlines() if line.startswith("pocket-2"))
    assert row.endswith("llamacpp, ollama")


def test_without_a_word_llamacpp_runs_it_and_says_why(ctl):
    answer = ctl.json("chat", FRANCE[0], "-m", MODEL, "--temperature", "0")
    assert (answer["text"], answer["engine"]) == (FRANCE[1], "llamacpp")
    first = answer["plan"]["reasons"][0]
    assert first["code"] == "engine"
    assert first["text"].startswith("llamacpp runs it: ")


def test_ollama_runs_it_when_it_is_asked_to(ctl):
    by_option = ctl.json("chat", FRANCE[0], "-m", MODEL, "--engine", "ollama", "--temperature", "0")
    by_name = ctl.json("chat", FRANCE[0], "-m", f"ollama/{MODEL}", "--temperature", "0")
    for answer in (by_option, by_name):
        assert (answer["text"], answer["engine"]) == (FRANCE[1], "ollama")
        assert answer["plan"]["reasons"][0]["text"] == "ollama runs it: the request names it."
    running = {(model["engine"], model["state"]) for model in ctl.json("ps")["running_models"]}
    assert ("ollama", "ready") in running


def test_what_ollama_has_in_memory_is_where_it_goes_on_unless_told(ctl):
    ctl("unload", MODEL)
    ctl.json("chat", FRANCE[0], "-m", MODEL, "--engine", "ollama")
    answer = ctl.json("chat", FRANCE[0], "-m", MODEL, "--temperature", "0")
    assert answer["engine"] == "ollama"
    assert answer["plan"]["reasons"][0]["text"] == "ollama runs it: the model is in memory there."
    ctl("unload", MODEL)
    assert ctl.json("ps")["running_models"] == []
