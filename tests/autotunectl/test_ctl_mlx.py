"""autotunectl mlx: the same verbs for one engine, and what a name stands for there."""

from __future__ import annotations

import json

import click
import pytest

from autotunectl.commands import mlx
from tests.fakes.fake_messages import engine, listed_model


@pytest.fixture
def with_mlx(daemon):
    daemon.engines = [engine("llamacpp"), engine("mlx")]
    daemon.models = [listed_model("pocket"), listed_model("qwen3-mlx", "mlx")]
    return daemon


@pytest.mark.parametrize("verb", mlx.VERBS)
def test_the_list_of_commands_says_what_each_says_of_itself(ctl, verb):
    command = mlx.command.get_command(click.Context(mlx.command), verb)
    assert (command.name, (command.help or "").split("\n")[0]) == (verb, mlx.VERBS[verb])
    shown = ctl("mlx", verb, "--help").out
    assert shown.startswith(f"Usage: autotunectl mlx {verb} ")
    assert "--json" in shown


def test_without_a_verb_it_shows_its_help(ctl):
    assert ctl("mlx").out == ctl("mlx", "--help").out
    for verb, text in mlx.VERBS.items():
        assert f"  {verb}" in ctl("mlx").out
        assert text in ctl("mlx").out


@pytest.mark.parametrize(
    ("verb", "hint"), [("lst", 'did you mean "list"?'), ("zzz", '"autotunectl mlx --help" lists them.')]
)
def test_an_unknown_verb_gets_a_suggestion(ctl, verb, hint):
    result = ctl("mlx", verb)
    assert result.status == 2
    assert f'There is no command "{verb}"; {hint}' in result.err


def test_list_has_the_models_of_mlx_alone(ctl, with_mlx):
    assert ctl("mlx", "list").out == ctl("ls", "--engine", "mlx").out
    printed = json.loads(ctl("mlx", "list", "--json").out)
    assert [model["id"] for model in printed["models"]] == ["qwen3-mlx"]


def test_pull_takes_the_version_for_mlx(ctl, with_mlx):
    result = ctl("mlx", "pull", "qwen3:8b")
    assert (result.status, result.out) == (
        0,
        "qwen3:8b is here; talk to it: autotunectl chat --model qwen3:8b\n",
    )
    assert (with_mlx.requests[-1].model, with_mlx.requests[-1].engine) == ("qwen3:8b", "mlx")
    assert not with_mlx.requests[-1].allow_too_large
    assert ctl("mlx", "pull", "qwen3:8b", "-y").status == 0
    assert with_mlx.requests[-1].allow_too_large


def test_neither_pull_nor_resolve_needs_the_engine(ctl, daemon):
    assert [engine.name for engine in daemon.engines] == ["llamacpp"]
    assert ctl("mlx", "pull", "qwen3:8b").status == 0
    assert ctl("mlx", "resolve", "qwen3:8b").status == 0


def test_a_pull_of_what_mlx_has_not_is_no_such_model(ctl, with_mlx):
    with_mlx.sources = []
    result = ctl("mlx", "pull", "zzz")
    assert (result.status, result.out) == (4, "")
    assert result.err.startswith('There is no model "zzz"; ')


def test_resolve_names_the_repositories_best_first(ctl, with_mlx):
    with_mlx.sources = ["hf:mlx-community/Qwen3-8B-4bit", "hf:mlx-community/Qwen3-8B\x1b[2J"]
    names = "hf:mlx-community/Qwen3-8B-4bit\nhf:mlx-community/Qwen3-8B[2J\n"
    assert ctl("mlx", "resolve", "qwen3:8b").out == names
    assert (with_mlx.requests[-1].model, with_mlx.requests[-1].engine) == ("qwen3:8b", "mlx")
    assert ctl("mlx", "resolve", "qwen3:8b", "-v").out == (
        f"{names}  why      The registry has qwen3:8b under this name.\n"
    )
    printed = json.loads(ctl("mlx", "resolve", "qwen3:8b", "--json").out)
    assert (printed["model"], printed["sources"]) == ("qwen3:8b", with_mlx.sources)


def test_a_name_that_stands_for_nothing_is_no_such_model(ctl, with_mlx):
    with_mlx.sources = []
    result = ctl("mlx", "resolve", "zzz")
    assert (result.status, result.out) == (4, "")
    assert result.err == (
        'No MLX repository is known for "zzz"; name one as in "hf:mlx-community/Qwen3-8B-4bit".\n'
    )
    result = ctl("mlx", "resolve", "zzz", "--json")
    assert (result.status, json.loads(result.out)["sources"]) == (4, [])
