"""Every command and every program of the README runs, and says what the README says it says."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import PATIENCE_SECONDS, make_environment, short_home

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(console|python)\n(.*?)```", README, re.DOTALL)
SERVE = "autotunectl serve &"


def steps():
    """Each command with the output that the README shows under it, and each program, in order."""
    for kind, block in BLOCKS:
        if kind == "python":
            yield kind, block, ""
            continue
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            yield kind, command, output


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def alike(text):
    """Without what differs from run to run: numbers with their units, and widths of columns."""
    text = re.sub(r"\d[\d.,]*", "#", text)
    text = re.sub(r"# ?(µs|ms|s|min|[KMGT]iB)\b", "#", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def machine():
    """A fresh home, with the programs on the PATH, as a reader has it."""
    with short_home() as home:
        environment = make_environment(home)
        environment["AUTOTUNE_PORT"] = str(free_port())  # somebody may use the one of the README
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        background = []
        yield environment, background
        for process in background:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
            process.stderr.close()
        subprocess.run(["autotunectl", "stop"], env=environment, check=True, capture_output=True)
        left = [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(home) in " ".join(process.info["cmdline"] or [])
        ]
        assert not left


@pytest.mark.parametrize(("kind", "text", "shown"), list(steps()), ids=lambda value: str(value)[:40])
def test_the_readme_runs(machine, kind, text, shown):
    environment, background = machine
    if text == SERVE:
        process = subprocess.Popen(
            ["autotunectl", "serve"], env=environment, stderr=subprocess.PIPE, text=True
        )
        background.append(process)
        assert f"http://127.0.0.1:{environment['AUTOTUNE_PORT']}" in process.stderr.readline()
        return
    text = text.replace("127.0.0.1:8765", f"127.0.0.1:{environment['AUTOTUNE_PORT']}")
    command = [sys.executable, "-c", text] if kind == "python" else ["bash", "-c", text]
    done = subprocess.run(
        command,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if kind == "console":
        assert alike(done.stdout) == alike(shown)


def test_make_test_is_what_every_change_must_pass():
    assert "exec make test" in (ROOT / ".ci/run").read_text()
    assert re.search(r"^test: check ##", (ROOT / "Makefile").read_text(), re.MULTILINE)
