"""The command line as a whole: help, global options, what is imported when."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from autotune.version import __version__

from autotunectl.cli import VERBS, root


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_commands_says_what_each_says_of_itself(verb):
    context = click.Context(root)
    command = root.get_command(context, verb)
    assert command is not None
    assert command.name == verb
    assert (command.help or "").split("\n")[0] == VERBS[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help_and_the_global_options(ctl, verb):
    for flag in ("--help", "-h"):
        result = ctl(verb, flag)
        assert result.status == 0
        assert result.out.startswith(f"Usage: autotunectl {verb} ")
        assert "--json" in result.out
        assert "--address unix:/PATH" in result.out


def test_without_a_command_it_shows_its_help(ctl):
    assert ctl().out == ctl("--help").out
    assert ctl().status == 0
    for verb, text in VERBS.items():
        assert f"  {verb}" in ctl().out
        assert text in ctl().out


def test_its_own_version(ctl):
    assert ctl("--version").out == f"autotunectl {__version__}\n"


def test_global_options_work_before_and_after_the_verb(ctl, daemon, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_ADDRESS", "unix:/nowhere/autotuned.sock")
    after = ctl("ls", "--json", "--address", daemon.address)
    before = ctl("--json", "--address", daemon.address, "ls")
    assert after == before
    assert json.loads(after.out)["default_model"] == "pocket"


def test_the_last_address_wins(ctl, daemon):
    assert ctl("--address", "unix:/nowhere/a.sock", "ls", "--address", daemon.address).status == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["chatt"], 'There is no command "chatt"; did you mean "chat"?'),
        (["xyzzy"], 'There is no command "xyzzy"; "autotunectl --help" lists them.'),
        (["ps", "--foo"], "No such option '--foo'; \"autotunectl ps --help\" explains it."),
        (
            ["pull", "--engine"],
            "Option '--engine' requires an argument; \"autotunectl pull --help\" explains it.",
        ),
        (["load"], "Missing argument 'MODEL'; \"autotunectl load --help\" explains it."),
        (
            ["chat", "--seed", "x", "q"],
            "Invalid value for '--seed': 'x' is not a valid integer; \"autotunectl chat --help\" explains it.",
        ),
        (
            ["chat", "--seed", str(1 << 63), "q"],
            f"Invalid value for '--seed': {1 << 63} is too large; \"autotunectl chat --help\" explains it.",
        ),
        (
            ["load", "pocket", "--keep-alive", "soon"],
            "Invalid value for '--keep-alive': \"soon\" is not a time; use one such as 90s, 10m, 2h or 1d, "
            'or -1 for ever; "autotunectl load --help" explains it.',
        ),
        (
            ["plan", "pocket", "--prompt-tokens", "5", "--file", "-"],
            '--prompt-tokens and --file exclude each other; "autotunectl plan --help" explains it.',
        ),
        (
            ["serve", "--port", "0"],
            "Invalid value for '--port': 0 is not in the range 1<=x<=65535; \"autotunectl serve --help\" explains it.",
        ),
    ],
)
def test_a_wrong_command_line_is_one_sentence(ctl, daemon, arguments, sentence):
    result = ctl(*arguments)
    assert (result.status, result.out, result.err) == (2, "", sentence + "\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["forget", "--json"],
            'Nobody is there to ask; add --yes to delete; "autotunectl forget --help" explains it.',
        ),
        (["ps", "--foo", "--json"], "No such option '--foo'; \"autotunectl ps --help\" explains it."),
        (
            ["chat", "--json"],
            '--json needs a question, as an argument or on standard input; "autotunectl chat --help" explains it.',
        ),
    ],
)
def test_a_wrong_command_line_with_json_is_json(ctl, daemon, arguments, sentence):
    result = ctl(*arguments)
    assert (result.status, result.out) == (2, "")
    assert json.loads(result.err) == {"error": {"reason": "USAGE", "message": sentence, "metadata": {}}}


def imported(*arguments: str) -> set[str]:
    """The modules that a cold run of this command line imports."""
    program = (
        "import sys; from autotunectl.__main__ import main; status = main();"
        "sys.stderr.write('\\n'.join(sys.modules)); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return set(result.stderr.splitlines())


def test_a_command_imports_only_what_it_needs(daemon):
    heavy = {"rich", "prompt_toolkit", "httpx", "starlette", "uvicorn", "platformdirs", "importlib.metadata"}
    modules = imported("ps", "--json")
    assert "grpc" in modules
    assert not heavy & modules
    assert {name for name in modules if name.startswith("autotunectl.commands.")} == {
        "autotunectl.commands.ps"
    }
    assert not {name for name in modules if name.partition(".")[0] in {"autotuned", "autotune_shim"}}


def test_help_imports_no_command_and_no_grpc():
    modules = imported("--help")
    assert "grpc" not in modules
    assert not any(name.startswith("autotunectl.commands.") for name in modules)
