from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autotunectl.entry import run_command_line
from tests.fakes.fake_daemon import FakeDaemon


@dataclass
class Result:
    """What one command line left."""

    status: int
    out: str
    err: str


class TerminalInput(io.TextIOWrapper):
    """Standard input of a person who types nothing."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())

    def isatty(self) -> bool:
        return True


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def daemon(monkeypatch, state_folder: Path) -> Iterator[FakeDaemon]:
    """A daemon at the default address."""
    for variable in ("AUTOTUNE_MODEL", "AUTOTUNE_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    with FakeDaemon() as running:
        monkeypatch.setenv("AUTOTUNE_ADDRESS", running.address)
        monkeypatch.setenv("AUTOTUNE_STATE_DIR", str(state_folder))
        yield running


@pytest.fixture
def no_daemon(daemon: FakeDaemon) -> FakeDaemon:
    """The default address after its daemon has gone."""
    daemon.stop()
    return daemon


@pytest.fixture
def ctl(capsys, monkeypatch) -> Callable[..., Result]:
    """``ctl("ps", "--json")`` runs a command line in this process; ``stdin`` None is a terminal."""

    def run(*arguments: str, stdin: bytes | None = None) -> Result:
        stream = TerminalInput() if stdin is None else io.TextIOWrapper(io.BytesIO(stdin))
        monkeypatch.setattr(sys, "stdin", stream)
        status = run_command_line(arguments)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run
