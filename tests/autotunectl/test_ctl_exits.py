"""Every failure is one sentence and an exit status; a stack trace never reaches a user."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading

import grpc
import pytest
from autotune import errors
from autotune.errors import AutotuneError

from autotunectl import exits
from tests.fakes.fake_messages import delta, rich_status, started

PATIENCE_SECONDS = 30.0

STATUSES = {
    "ADDRESS_INVALID": 3,
    "CANCELLED": 1,
    "CONTEXT_TOO_LONG": 5,
    "DAEMON_UNREACHABLE": 3,
    "DEADLINE_EXCEEDED": 1,
    "DOWNLOAD_CORRUPT": 1,
    "ENGINE_UNREACHABLE": 7,
    "FIELD_INVALID": 5,
    "INTERNAL": 1,
    "KEY_REVOKED": 5,
    "MESSAGE_TOO_LARGE": 5,
    "MODEL_INVALID": 5,
    "MODEL_LOAD_FAILED": 7,
    "MODEL_NOT_FOUND": 4,
    "MODEL_TOO_LARGE": 5,
    "QUEUE_FULL": 6,
    "SHUTTING_DOWN": 3,
    "SOURCE_DENIED": 5,
    "SOURCE_UNREACHABLE": 1,
    "STORAGE_FULL": 1,
    "UNAUTHENTICATED": 5,
    "UNSUPPORTED": 5,
    "VERSION_MISMATCH": 1,
    "WOULD_SWAP": 5,
}


def test_every_reason_has_its_exit_status():
    kinds = AutotuneError.__subclasses__()
    assert {kind.default_reason: exits.status_of(kind("x")) for kind in kinds} == STATUSES
    assert exits.status_of(AutotuneError("x", reason="OF_A_NEWER_DAEMON")) == 1


@pytest.mark.parametrize(
    "reason", ["MODEL_NOT_FOUND", "QUEUE_FULL", "ENGINE_UNREACHABLE", "CONTEXT_TOO_LONG"]
)
def test_a_refusal_is_its_sentence_and_its_status(ctl, daemon, reason):
    daemon.refusal = rich_status(grpc.StatusCode.ABORTED, reason, "It failed; do this.", model="pocket")
    result = ctl("ps")
    assert (result.status, result.out, result.err) == (STATUSES[reason], "", "It failed; do this.\n")
    result = ctl("ps", "--json")
    assert (result.status, result.out) == (STATUSES[reason], "")
    assert json.loads(result.err) == {
        "error": {"reason": reason, "message": "It failed; do this.", "metadata": {"model": "pocket"}}
    }


def test_a_sentence_cannot_steer_the_terminal(ctl, daemon):
    daemon.refusal = rich_status(grpc.StatusCode.ABORTED, "MODEL_NOT_FOUND", 'No model "\x1b[2J".')
    assert ctl("ps").err == 'No model "[2J".\n'


@pytest.mark.parametrize("address", ["localhost:1234", "unix:/" + "a" * 200])
def test_an_address_that_cannot_be_is_a_sentence(ctl, address):
    result = ctl("ps", "--address", address)
    assert result.status == 3
    assert address.removeprefix("unix:") in result.err
    assert result.err.count("\n") == 1


def test_what_nobody_foresaw_is_a_sentence_and_a_trace_in_the_log(ctl, daemon, monkeypatch, state_folder):
    def defect(_):
        raise RuntimeError("an odd thing")

    monkeypatch.setattr("autotune.client.Client.list_running_models", defect)
    result = ctl("ps")
    log = state_folder / "autotunectl.log"
    assert result.status == 1
    assert result.err == (
        f"autotunectl failed unexpectedly (RuntimeError: an odd thing); the details are in {log}.\n"
    )
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_without_a_place_for_the_log_the_sentence_stands_alone(ctl, daemon, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_STATE_DIR", "/dev/null/state")
    monkeypatch.setattr("autotune.client.Client.list_running_models", lambda _: 1 / 0)
    result = ctl("ps")
    assert result.err == (
        "autotunectl failed unexpectedly (ZeroDivisionError: division by zero); please report it.\n"
    )


def test_an_interrupt_is_130(ctl, daemon, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("autotune.client.Client.list_running_models", interrupted)
    result = ctl("ps")
    assert (result.status, result.err) == (130, "")


def environment(daemon) -> dict[str, str]:
    return {**os.environ, "AUTOTUNE_ADDRESS": daemon.address}


def test_a_reader_that_leaves_ends_it_silently(daemon):
    def script(request, context):
        while context.is_active():
            yield delta("word " * 1000)

    daemon.script = script
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "autotunectl", "chat", "hello"],
        env=environment(daemon),
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert os.read(reader, 5) == b"word "
    os.close(reader)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (1, b"")


def test_a_reader_that_has_left_before_ends_it_silently(daemon):
    command = f"{shlex.quote(sys.executable)} -m autotunectl ls | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["/bin/bash", "-c", command], env=environment(daemon), capture_output=True, check=False
    )
    assert result.returncode in {0, 1}
    assert result.stderr == b""


def test_output_that_cannot_be_written_is_a_sentence(daemon):
    command = f"{shlex.quote(sys.executable)} -m autotunectl ls > /dev/full"
    result = subprocess.run(
        ["/bin/sh", "-c", command], env=environment(daemon), capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == "The output could not be written: No space left on device.\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere(daemon, closed):
    command = f"{shlex.quote(sys.executable)} -m autotunectl chat hello {closed}"
    result = subprocess.run(
        ["/bin/sh", "-c", command], env=environment(daemon), capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert len(daemon.requests) > 0


def test_ctrl_c_stops_the_answer_and_keeps_what_came(daemon):
    def script(request, context):
        yield started()
        yield delta("Once upon")
        daemon.hold(context)

    daemon.script = script
    process = subprocess.Popen(
        [sys.executable, "-m", "autotunectl", "chat", "hello"],
        env=environment(daemon),
        bufsize=0,  # read and communicate must not each keep a part
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(9) == b"Once upon"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out, err) == (130, b"\n", b"")
    assert daemon.cancelled.wait(PATIENCE_SECONDS)


ANNOUNCED = """
import sys
import autotunectl.__main__ as program

class Announce:
    def find_spec(self, name, path=None, target=None):
        if name == "autotunectl.entry":  # the first thing that the program does
            print(flush=True)

sys.meta_path.insert(0, Announce())
raise SystemExit(program.main())
"""


@pytest.mark.parametrize("moment_milliseconds", range(0, 140, 10))
def test_ctrl_c_at_any_moment_leaves_no_trace(daemon, moment_milliseconds):
    process = subprocess.Popen(
        [sys.executable, "-c", ANNOUNCED, "ls"],
        env=environment(daemon),
        bufsize=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"\n"
    threading.Event().wait(moment_milliseconds / 1000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode in {0, 130}, err.strip().decode().split("\n")) == (True, [""])


IN_A_CALLBACK = """
import sys, threading
import autotunectl.__main__ as program

class Callback:
    def __del__(self):
        raise KeyboardInterrupt

sys.unraisablehook = program._keep_interrupt
try:
    Callback()
    threading.Event().wait(30)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_in_a_callback_is_not_lost():
    result = subprocess.run([sys.executable, "-c", IN_A_CALLBACK], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("interrupted\n", "")


def test_the_sentence_for_a_lost_daemon_is_that_of_the_library(ctl, daemon):
    assert issubclass(errors.DaemonNotRunning, errors.DaemonUnreachable)
    daemon.refusal = rich_status(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "The daemon is shutting down.")
    assert ctl("ps").status == 3
