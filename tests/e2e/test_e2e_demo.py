"""``make demo``: what somebody sees first."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import make_environment

ROOT = Path(__file__).parents[2]
ANSWER = "pocket: The capital of France is Paris."


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """No daemon runs here; the folders have names that break careless scripts."""
    with tempfile.TemporaryDirectory(prefix="at ") as home:
        folders = {f"AUTOTUNE_{name}_DIR": f"{home}/{name} ü" for name in ("RUNTIME", "DATA", "STATE")}
        yield make_environment(Path(home), **folders)


def demo(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "packaging" / "demo.py"],
        env=environment,
        cwd=environment["HOME"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def started_process_id(first_line: str) -> int:
    assert first_line.startswith("Started autotuned ")
    return int(first_line.rstrip(".").rpartition(" ")[2])


def test_it_answers_twice_in_a_row_and_leaves_nothing_behind(environment):
    for _ in range(2):
        shown = demo(environment)
        assert (shown.returncode, shown.stderr) == (0, "")
        lines = shown.stdout.splitlines()
        assert ANSWER in lines
        assert "Stopped the daemon again; the next command starts one." in lines
        for label in ("Time to first token", "Speed", "Prompt", "Answer", "Context", "Why"):
            assert any(line.startswith(label) for line in lines)
        for command in ("chat", "serve"):
            assert any(f".venv/bin/autotunectl {command} " in line for line in lines)
        assert not psutil.pid_exists(started_process_id(lines[0]))


def test_a_daemon_that_runs_already_goes_on(daemon):
    shown = demo(daemon.environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("Found autotuned ")
    assert ANSWER in shown.stdout.splitlines()
    assert daemon.process.poll() is None


def test_a_failure_is_one_sentence(environment):
    shown = demo({**environment, "AUTOTUNE_QUEUE_MAX_WAITING": "many"})
    assert shown.returncode == 1
    assert shown.stderr.startswith(
        "The demo failed: The daemon could not start: environment variable AUTOTUNE_QU"
    )
    assert shown.stderr.count("\n") == 1
