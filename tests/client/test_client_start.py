"""Starting a daemon: who starts, who waits, and what is said when none can."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from autotune import start
from autotune.errors import AddressInvalid, DaemonUnreachable
from autotune.start import ensure_daemon
from autotune.state import state_directory
from grpc_health.v1 import health_pb2

PATIENCE_SECONDS = 30.0

SERVE = """
import os, sys, threading
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.fakes.fake_daemon import FakeDaemon
folder = next(text.partition("=")[2] for text in sys.argv if text.startswith("paths.runtime="))
null = os.fstat(0).st_rdev == os.stat(os.devnull).st_rdev
open({pids!r}, "a").write(f"{{os.getpid()}} {{os.getsid(0)}} {{null}}\\n")
daemon = FakeDaemon(Path(folder)).__enter__()
daemon.process_id = os.getpid()
threading.Event().wait()
"""


class Stage:
    """A home with a stand-in for the program ``autotuned``, which it finds before the real one."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder = folder
        self.address = f"unix:{runtime}/autotuned.sock"
        self.pids = folder / "pids"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "AUTOTUNE_STATE_DIR": str(folder / "state"),
        }
        (folder / "autotuned").mkdir()
        (folder / "autotuned/__init__.py").touch()

    def program(self, text: str) -> None:
        (self.folder / "autotuned/__main__.py").write_text(text)

    def serving_program(self) -> None:
        self.program(SERVE.format(root=str(Path(__file__).parents[2]), pids=str(self.pids)))

    def started(self) -> list[list[str]]:
        return [line.split() for line in self.pids.read_text().splitlines()] if self.pids.exists() else []

    def ensure(self, timeout_seconds: float = PATIENCE_SECONDS) -> bool:
        return ensure_daemon(self.address, environment=self.environment, timeout_seconds=timeout_seconds)


@pytest.fixture
def stage(tmp_path: Path, daemon) -> Iterator[Stage]:
    """Its daemon has gone: the socket is free for another one."""
    daemon.stop()
    made = Stage(tmp_path, daemon.runtime)
    yield made
    for process_id, *_ in made.started():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process_id), signal.SIGKILL)


def reapers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "autotuned-reaper"]


def test_a_daemon_that_serves_is_left_alone(daemon):
    assert ensure_daemon(daemon.address) is False


def test_a_daemon_that_is_not_ready_yet_is_waited_for(daemon, tmp_path):
    daemon.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    ready = threading.Timer(0.1, daemon.health.set, ("", health_pb2.HealthCheckResponse.SERVING))
    ready.start()
    environment = {**os.environ, "AUTOTUNE_STATE_DIR": str(tmp_path)}
    assert ensure_daemon(daemon.address, environment=environment, timeout_seconds=PATIENCE_SECONDS) is False
    ready.join()


def test_a_daemon_is_started_detached_and_found_by_the_next_call(stage):
    stage.serving_program()
    assert stage.ensure() is True
    assert stage.ensure() is False
    ((process_id, session_id, reads_nothing),) = stage.started()
    assert process_id == session_id
    assert reads_nothing == "True"
    assert int(process_id) != os.getpid()


def test_the_daemon_is_reaped_when_it_ends(stage):
    stage.serving_program()
    stage.ensure()
    (reaper,) = reapers()
    os.kill(int(stage.started()[0][0]), signal.SIGKILL)
    reaper.join(PATIENCE_SECONDS)
    assert not reaper.is_alive()


def test_a_daemon_that_cannot_start_is_quoted(stage):
    stage.program("import sys; sys.exit('autotuned: queue.max_waiting = -1: it must be 0 or more.')")
    with pytest.raises(DaemonUnreachable) as caught:
        stage.ensure()
    assert caught.value.message == "The daemon could not start: queue.max_waiting = -1: it must be 0 or more."
    log = state_directory(stage.environment) / "autotuned.log"
    assert caught.value.metadata == {"address": stage.address, "exitStatus": "1", "logFile": str(log)}
    assert log.stat().st_mode & 0o777 == 0o600


def test_only_the_last_words_of_this_start_are_quoted(stage):
    for number in (1, 2):
        stage.program(f"import sys; print('noise', file=sys.stderr); sys.exit('reason {number}\\n\\n')")
        with pytest.raises(DaemonUnreachable, match=f"could not start: reason {number}$"):
            stage.ensure()


def test_a_daemon_that_says_nothing_is_told_by_its_status(stage):
    stage.program("raise SystemExit(5)")
    with pytest.raises(DaemonUnreachable, match="it ended with status 5 and said nothing"):
        stage.ensure()


def test_last_words_are_heard_without_a_state_folder(stage):
    stage.environment["AUTOTUNE_STATE_DIR"] = "/dev/null/state"
    stage.program("import sys; sys.exit('autotuned: no.')")
    with pytest.raises(DaemonUnreachable, match=r"could not start: no\.$"):
        stage.ensure()


def test_the_loser_of_the_race_waits_for_the_winner(stage):
    # The first program to run meets a held lock, and the lock's holder serves by the second.
    stage.serving_program()
    serving = (stage.folder / "autotuned/__main__.py").read_text()
    lost = stage.folder / "lost"
    stage.program(
        f"import os, sys\nif not os.path.exists({str(lost)!r}):\n    open({str(lost)!r}, 'w'); sys.exit(3)\n{serving}"
    )
    assert stage.ensure() is True
    assert lost.exists()
    assert len(stage.started()) == 1


def test_many_at_once_end_with_one_daemon(stage):
    stage.serving_program()
    serving = (stage.folder / "autotuned/__main__.py").read_text()
    lock = stage.folder / "lock"
    stage.program(
        f"import fcntl, sys\nlock = open({str(lock)!r}, 'w')\n"
        "try:\n    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\nexcept OSError:\n    sys.exit(3)\n"
        + serving
    )
    started: list[bool] = []
    threads = [threading.Thread(target=lambda: started.append(stage.ensure())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert sorted(started) == [False, False, False, True]
    assert len(stage.started()) == 1


def test_a_daemon_that_never_serves_is_given_up_and_ended(stage):
    stage.program(
        f"import os, threading; open({str(stage.pids)!r}, 'a').write(f'{{os.getpid()}} x x\\n'); threading.Event().wait()"
    )
    with pytest.raises(DaemonUnreachable) as caught:
        stage.ensure(timeout_seconds=2.0)
    assert caught.value.message == (
        f"The daemon does not serve {stage.address} after 2 s; "
        f"its log is {stage.environment['AUTOTUNE_STATE_DIR']}/autotuned.log."
    )
    for reaper in reapers():
        reaper.join(PATIENCE_SECONDS)
        assert not reaper.is_alive()


def test_the_daemon_does_not_see_the_current_folder(stage, monkeypatch, tmp_path):
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "threading.py").write_text("raise SystemExit('trapped')")
    monkeypatch.chdir(trap)
    stage.serving_program()
    assert stage.ensure() is True


def test_a_socket_that_no_daemon_would_serve_is_refused(tmp_path):
    with pytest.raises(DaemonUnreachable, match=r"a socket that is called autotuned\.sock"):
        ensure_daemon("unix:/tmp/at-nowhere/other.sock")
    with pytest.raises(AddressInvalid):
        ensure_daemon("localhost:1")


def test_a_log_that_has_grown_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "_LOG_MAX_BYTES", 10)
    path = tmp_path / "autotuned.log"
    path.write_text("a long old story")
    with start._open_log(path) as log:
        log.write(b"new")
    assert path.read_text() == "new"
    assert (tmp_path / "autotuned.log.1").read_text() == "a long old story"


def test_the_state_folder_is_the_chosen_one_or_the_platforms(monkeypatch):
    assert state_directory({"AUTOTUNE_STATE_DIR": "/state"}) == Path("/state")
    assert state_directory({}).name == "autotune"
    assert sys.modules["platformdirs"].user_state_path("autotune") == state_directory({})
