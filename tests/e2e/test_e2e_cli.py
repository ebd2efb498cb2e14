"""autotunectl as people and scripts use it: real processes, a real daemon, a real terminal."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pexpect
import psutil
import pytest
from autotune.version import __version__

from tests.e2e.conftest import PATIENCE_SECONDS, make_environment, short_home

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
STORY = "Tell me a story."
ATTEMPTS = 20
"""On a busy machine a story may be told before a signal arrives."""
STARTED = re.compile(r'^Started autotuned \S+ \(process (\d+)\); "autotunectl stop" ends it\.\n$')
READY = "\x1b[?2004h"
"""What the line editor sends when it is ready: pastes are to be bracketed."""
CTL = [sys.executable, "-m", "autotunectl"]


class Ctl:
    """autotunectl in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = make_environment(home)

    def __call__(self, *arguments: str, piped: bytes = b"") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*CTL, *arguments],
            env=self.environment,
            input=piped,
            capture_output=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def json(self, *arguments: str, piped: bytes = b"") -> Any:
        """What it prints with ``--json``; anything else fails the test."""
        done = self(*arguments, "--json", piped=piped)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def terminal(self, *arguments: str) -> pexpect.spawn:
        """A command at a pseudo-terminal that answers no questions about its cursor."""
        return pexpect.spawn(
            CTL[0],
            [*CTL[1:], *arguments],
            env={**self.environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
            dimensions=(40, 200),
        )

    def daemon_family(self) -> list[psutil.Process]:
        """The daemon and what it started; nothing when none runs."""
        status = json.loads(self("status", "--json").stdout)
        if not status["daemon_running"]:
            return []
        daemon = psutil.Process(status["daemon"]["process_id"])
        return [daemon, *daemon.children(recursive=True)]

    def end(self) -> None:
        """Stops the daemon; nothing of it may be left."""
        family = self.daemon_family()
        self("stop")
        try:
            wait_until(lambda: not living(family), f"the daemon left processes behind: {family}")
        finally:
            for process in living(family):
                process.kill()


@pytest.fixture(scope="module")
def ctl() -> Iterator[Ctl]:
    """A daemon that was started by a question, shared by the tests of this file."""
    with short_home() as home:
        made = Ctl(home)
        made("chat", QUESTION)
        yield made
        made.end()


@pytest.fixture
def fresh() -> Iterator[Ctl]:
    """A home in which nothing ever ran."""
    with short_home() as home:
        made = Ctl(home)
        yield made
        made.end()


@pytest.fixture
def terminal(ctl: Ctl) -> Iterator[pexpect.spawn]:
    """A dialogue with the shared daemon."""
    child = ctl.terminal("chat", "--temperature", "0")
    child.expect_exact("Talking to pocket; /help lists the commands, Ctrl-D leaves.")
    child.expect_exact(READY)
    yield child
    child.close(force=True)


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; one that nobody has reaped yet has."""

    def lives(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if lives(process)]


@contextmanager
def slow_worker(ctl: Ctl) -> Iterator[None]:
    """Lets the pocket model's worker run for a millisecond at a time, so that a story takes a while."""
    ctl("load", "pocket")
    (model,) = ctl.json("ps")["running_models"]
    worker = psutil.Process(model["process_id"])
    ended = threading.Event()

    def brake() -> None:
        while not ended.wait(0.03):
            worker.resume()
            ended.wait(0.001)
            worker.suspend()

    worker.suspend()
    thread = threading.Thread(target=brake)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        worker.resume()


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what
        pause.wait(0.02)


def test_the_first_question_starts_the_daemon_and_says_so_in_one_line(fresh):
    first = fresh("chat", QUESTION, "--temperature", "0")
    assert (first.returncode, first.stdout) == (0, ANSWER + "\n")
    started = STARTED.match(first.stderr)
    assert started is not None, first.stderr
    assert fresh.json("status")["daemon"]["process_id"] == int(started[1])
    second = fresh("chat", QUESTION, "--temperature", "0")
    assert (second.returncode, second.stdout, second.stderr) == (0, ANSWER + "\n", "")


def test_without_a_daemon_what_only_looks_starts_none(fresh):
    assert (
        fresh("ps").stderr
        == 'No daemon is running, so no model is in memory; "autotunectl chat" starts one.\n'
    )
    assert fresh.json("ps") == {
        "daemon_running": False,
        "running_models": [],
        "pressure_tier": None,
    }
    assert fresh("status").returncode == 3
    assert fresh("version").stdout == f"autotunectl  {__version__}\nautotuned    not running\n"
    assert fresh("unload", "pocket").stdout == "pocket was not in memory.\n"
    assert fresh("stop").stdout == "No daemon is running.\n"
    assert not (fresh.home / "run").exists()


def test_many_first_questions_at_once_share_one_daemon(fresh):
    processes = [
        subprocess.Popen(
            [*CTL, "chat", QUESTION, "--temperature", "0"],
            env=fresh.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    done = [process.communicate(timeout=PATIENCE_SECONDS) for process in processes]
    assert [out for out, _ in done] == [ANSWER + "\n"] * 3
    assert sorted(bool(STARTED.match(err)) for _, err in done) == [False, False, True]


def test_a_daemon_that_cannot_start_is_quoted(fresh):
    (fresh.home / "data").write_text("in the way")
    done = fresh("ls")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("The daemon could not start: ")
    assert str(fresh.home / "data") in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_runtime_folder_with_a_long_name_is_a_sentence(fresh):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fresh.environment, "AUTOTUNE_RUNTIME_DIR", str(fresh.home / ("r" * 100)))
        done = fresh("chat", QUESTION)
    assert done.returncode == 3
    assert "the operating system takes 103; set AUTOTUNE_RUNTIME_DIR to a shorter folder" in done.stderr


def test_the_numbers_follow_the_answer_on_standard_error(ctl):
    done = ctl("chat", QUESTION, "--temperature", "0", "--stats")
    assert done.stdout == ANSWER + "\n"
    numbers, context = done.stderr.splitlines()
    assert re.fullmatch(
        r"TTFT [\d.]+ ms · [\d,.]+ tokens/s · prompt \d+ tokens \(\d+ cached\) · reply \d+ tokens.*", numbers
    )
    assert re.fullmatch(r"context [\d,]+ tokens: .+\.", context)


def test_an_answer_as_json(ctl):
    answer = ctl.json("chat", QUESTION, "--temperature", "0")
    assert answer["text"] == ANSWER
    assert (answer["model"], answer["engine"], answer["finish_reason"]) == ("pocket", "llamacpp", "stop")
    assert answer["usage"]["prompt_tokens"] > answer["usage"]["cached_tokens"] >= 0
    assert answer["usage"]["reply_tokens"] > 0
    assert answer["timings"]["time_to_first_token_seconds"] > 0
    assert answer["plan"]["shape"]["context_tokens"] > 0
    assert answer["plan"]["reasons"]


def test_piped_text_is_the_question_or_follows_it(ctl):
    assert ctl("chat", "--temperature", "0", piped=QUESTION.encode() + b"\n").stdout == ANSWER + "\n"
    alone = ctl.json("chat", "Hello.")["usage"]["prompt_tokens"]
    both = ctl.json("chat", "Hello.", piped=b"What is a model?")["usage"]["prompt_tokens"]
    assert both > alone


def test_options_have_their_effect(ctl):
    cut = ctl.json("chat", STORY, "--max-tokens", "5")
    assert (cut["usage"]["reply_tokens"], cut["finish_reason"]) == (5, "length")
    seeded = [ctl.json("chat", STORY, "--seed", "7", "--temperature", "1")["text"] for _ in range(2)]
    assert seeded[0] == seeded[1]
    instructed = ctl.json("chat", "What is my name?", "-s", "The user's name is Ada.", "--temperature", "0")
    plain = ctl.json("chat", "What is my name?", "--temperature", "0")
    assert instructed["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("arguments", "status", "reason", "words"),
    [
        (
            ["chat", "-m", "poket", "hi"],
            4,
            "MODEL_NOT_FOUND",
            'There is no model "poket"; did you mean "pocket"?',
        ),
        (["run", "poket", "hi"], 4, "MODEL_NOT_FOUND", 'There is no model "poket"'),
        (["load", "poket"], 4, "MODEL_NOT_FOUND", 'There is no model "poket"'),
        (["unload", "poket"], 4, "MODEL_NOT_FOUND", 'There is no model "poket"'),
        (["chat", "--temperature", "nan", "hi"], 5, "FIELD_INVALID", "temperature"),
        (["chat", "--temperature", "-1", "hi"], 5, "FIELD_INVALID", "temperature"),
        (["chat", "--max-tokens", "0", "hi"], 5, "FIELD_INVALID", "--max-tokens"),
        (["chat", "--max-tokens", "9" * 18, "--context", "9" * 18, "hi"], 5, "FIELD_INVALID", "--context"),
        (["chat", "--context", "99999", "hi"], 5, "FIELD_INVALID", "8,192"),
        (["load", "pocket", "--context", "-1"], 5, "FIELD_INVALID", "--context"),
        (["chat", "a \udcff b"], 5, "FIELD_INVALID", "lone surrogate"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_an_exit_status(ctl, arguments, status, reason, words):
    done = ctl(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    done = ctl(*arguments, "--json")
    assert (done.returncode, done.stdout) == (status, "")
    error = json.loads(done.stderr)["error"]
    assert error["reason"] == reason
    assert words in error["message"]


def test_a_prompt_that_is_too_long_is_refused_and_the_daemon_goes_on(ctl):
    done = ctl("chat", piped=b"word " * 20_000)
    assert (done.returncode, done.stdout) == (5, "")
    assert "the context holds 8,192" in done.stderr
    assert ctl("chat", QUESTION, "--temperature", "0").stdout == ANSWER + "\n"


def test_models_are_listed_loaded_shown_and_unloaded(ctl):
    listed = ctl.json("ls")
    assert listed["default_model"] == "pocket"
    assert [model["id"] for model in listed["models"]] == ["pocket"]
    assert re.match(
        r"MODEL +SIZE +ARCHITECTURE.*\npocket \* +2\.\d MiB +llama +Q8_0 +8,192 +", ctl("ls").stdout
    )
    ctl("unload", "pocket")
    assert ctl.json("ps")["running_models"] == []
    loaded = ctl("load", "pocket", "--context", "3000")
    assert loaded.returncode == 0
    assert loaded.stdout.startswith("pocket is in memory, loaded in ")
    (running,) = ctl.json("ps")["running_models"]
    assert running["state"] == "ready"
    assert running["shape"]["context_tokens"] >= 3000
    assert psutil.pid_exists(running["process_id"])
    assert re.match(r"MODEL .*\npocket +llamacpp +ready +3,\d{3} +1 ", ctl("ps").stdout)
    assert "KV cache takes" in ctl("ps", "-v").stdout
    assert ctl("load", "pocket").stdout.startswith("pocket was in memory already")
    assert ctl("unload", "pocket").stdout.startswith("Unloaded pocket")
    assert ctl("unload", "pocket").stdout == "pocket was not in memory.\n"
    events = [json.loads(line) for line in ctl("load", "pocket", "--json").stdout.splitlines()]
    assert {event["event"] for event in events[:-1]} <= {"progress"}
    assert events[-1]["event"] == "loaded"
    assert events[-1]["plan"]["action"] == "load"


def test_run_loads_shows_the_plan_and_answers(ctl):
    done = ctl("run", "pocket", QUESTION, "--temperature", "0")
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n")
    assert "  why      " in done.stderr
    assert ctl.json("run", "pocket", QUESTION, "--temperature", "0")["text"] == ANSWER


def test_status_and_version_tell_of_the_daemon(ctl):
    told = ctl.json("status")
    assert told["address"] == f"unix:{ctl.home}/run/autotuned.sock"
    assert told["daemon"]["data_directory"] == str(ctl.home / "data")
    assert told["snapshot"]["memory_total_bytes"] > told["snapshot"]["memory_available_bytes"] > 0
    text = ctl("status").stdout
    assert f"Daemon    autotuned {__version__}, process {told['daemon']['process_id']}\n" in text
    if sys.platform == "linux":
        assert f"Log       {ctl.home}/state/autotuned.log\n" in text
    assert ctl("version").stdout == f"autotunectl  {__version__}\nautotuned    {__version__}\n"
    assert ctl.json("version") == {"client_version": __version__, "daemon_version": __version__}


def test_stop_ends_the_daemon_and_its_workers(fresh):
    fresh("chat", QUESTION)
    family = fresh.daemon_family()
    assert len(family) > 1
    assert fresh.json("stop") == {"stopped": True}
    wait_until(lambda: not living(family), "something of the daemon is left")
    again = fresh("chat", QUESTION, "--temperature", "0")
    assert again.stdout == ANSWER + "\n"
    assert STARTED.match(again.stderr)


def test_a_question_right_after_stop_waits_for_the_old_daemon_and_starts_a_new_one(fresh):
    fresh("chat", QUESTION)
    stop = subprocess.Popen([*CTL, "stop"], env=fresh.environment, stdout=subprocess.DEVNULL)
    done = fresh("chat", QUESTION, "--temperature", "0")
    stop.wait(PATIENCE_SECONDS)
    assert done.returncode in {0, 3}, done.stderr
    assert fresh("chat", QUESTION, "--temperature", "0").stdout == ANSWER + "\n"


def test_ctrl_c_ends_a_one_shot_answer_and_the_engine_stops(ctl):
    def interrupted() -> bool:
        process = subprocess.Popen(
            [*CTL, "chat", STORY],
            env=ctl.environment,
            bufsize=0,  # read and communicate must not each keep a part
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert err == b""
        assert out.endswith(b"\n")
        assert process.returncode in {0, 130}
        return process.returncode == 130

    with slow_worker(ctl):
        assert any(interrupted() for _ in range(ATTEMPTS))
    wait_until(
        lambda: ctl.json("ps")["running_models"][0]["active_requests_count"] == 0, "it still generates"
    )


def test_a_dialogue_remembers_what_was_said_and_reuses_its_prefix(terminal):
    terminal.sendline("My name is Ada.")
    terminal.expect_exact("TTFT ")
    terminal.expect_exact(READY)
    terminal.sendline("What is my name?")
    terminal.expect_exact("Ada")
    terminal.expect(r"prompt \d+ tokens \((\d+) cached\)")
    assert int(terminal.match[1]) > 0
    terminal.expect_exact(READY)
    terminal.sendline("/history")
    terminal.expect_exact("> My name is Ada.")
    terminal.expect_exact("> What is my name?")
    terminal.expect_exact(READY)
    terminal.sendline("/metrics")
    terminal.expect(r"2 answers: mean TTFT [\d.]+ ms")
    terminal.expect_exact(READY)
    terminal.sendline("/quit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_slash_commands_work_at_a_terminal(terminal, ctl):
    terminal.sendline("/hlep")
    terminal.expect_exact("There is no command /hlep; did you mean /help?")
    terminal.expect_exact(READY)
    terminal.sendline("/model poket")
    terminal.expect_exact('There is no model "poket"; did you mean "pocket"?')
    terminal.expect_exact(READY)
    terminal.sendline("/profile fast")
    terminal.expect_exact("The profile is fast.")
    terminal.expect_exact(READY)
    terminal.sendline(QUESTION)
    terminal.expect_exact(ANSWER)
    terminal.expect_exact(READY)
    target = ctl.home / "talk.md"
    terminal.sendline(f"/export {target}")
    terminal.expect_exact("Wrote ")
    terminal.expect_exact(READY)
    assert f"## You\n\n{QUESTION}\n\n## Model\n\n{ANSWER}\n" in target.read_text()
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_ctrl_c_at_a_terminal_stops_the_answer_and_not_the_program(ctl):
    child = ctl.terminal("chat")
    try:
        child.expect_exact(READY)

        def interrupted() -> bool:
            child.sendline(STORY)
            child.expect_exact("Once upon")
            child.sendintr()
            stopped = child.expect_exact(["Stopped; what came is kept.", "Ctrl-D or /quit leaves."]) == 0
            child.expect_exact(READY)
            return stopped

        with slow_worker(ctl):
            assert any(interrupted() for _ in range(ATTEMPTS))
        child.sendline("/history")
        child.expect_exact(f"> {STORY}")
        child.expect_exact("Once upon")
        child.expect_exact(READY)
        child.sendintr()
        child.expect_exact("Ctrl-D or /quit leaves.")
        child.expect_exact(READY)
        child.sendline("/quit")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0
    finally:
        child.close(force=True)
    wait_until(
        lambda: ctl.json("ps")["running_models"][0]["active_requests_count"] == 0, "it still generates"
    )


def test_what_was_typed_is_there_the_next_time(ctl):
    for entry in ("My lucky number is 42.", None):
        child = ctl.terminal("chat", "--temperature", "0")
        try:
            child.expect_exact(READY)
            if entry is not None:
                child.sendline(entry)
                child.expect_exact("TTFT ")
                child.expect_exact(READY)
            else:
                child.send("\x1b[A")
                child.expect_exact("My lucky number is 42.")
                child.sendintr()
                child.expect_exact(READY)
            child.sendeof()
            child.expect(pexpect.EOF)
        finally:
            child.close(force=True)
    history = ctl.home / "state" / "chat_history"
    assert history.stat().st_mode & 0o777 == 0o600


def test_a_paste_of_many_lines_is_one_question(terminal):
    terminal.send("\x1b[200~Repeat:\nhello\x1b[201~")
    terminal.expect_exact("hello")
    terminal.send("\r")
    terminal.expect_exact("TTFT ")
    terminal.expect_exact(READY)
    terminal.sendline("/metrics")
    terminal.expect_exact("1 answer: ")


def test_a_dialogue_survives_the_death_of_its_daemon(fresh):
    fresh("chat", QUESTION)
    child = fresh.terminal("chat", "--temperature", "0")
    try:
        child.expect_exact(READY)
        family = fresh.daemon_family()
        family[0].kill()
        wait_until(lambda: not living(family), "a worker outlived its daemon")
        child.sendline(QUESTION)
        answers = ["Started autotuned", "The connection to the daemon broke"]
        if child.expect_exact(answers) == 1:
            child.expect_exact(READY)
            child.sendline(QUESTION)
            child.expect_exact("Started autotuned")
        child.expect_exact(ANSWER)
        child.expect_exact(READY)
        child.sendeof()
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


def test_a_dialogue_with_an_unknown_model_does_not_begin(ctl):
    child = ctl.terminal("chat", "-m", "poket")
    try:
        child.expect_exact('There is no model "poket"; did you mean "pocket"?')
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 4
    finally:
        child.close(force=True)


def test_a_home_that_cannot_be_written_disturbs_no_dialogue(ctl):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ctl.environment, "AUTOTUNE_STATE_DIR", "/dev/null/state")
        child = ctl.terminal("chat", "--temperature", "0")
    try:
        child.expect_exact(READY)
        child.sendline(QUESTION)
        child.expect_exact(ANSWER)
        child.expect_exact(READY)
        child.sendeof()
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


def test_run_at_a_terminal_loads_and_talks(ctl):
    child = ctl.terminal("run", "pocket", "--temperature", "0", "--no-stats")
    try:
        child.expect(r"pocket (is|was) in memory")
        child.expect_exact(READY)
        child.sendline(QUESTION)
        child.expect_exact(ANSWER)
        child.expect_exact(READY)
        child.sendline("/quit")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


def test_a_terminal_sees_the_numbers_of_one_question(ctl):
    command = shlex.join([*CTL, "chat", "--temperature", "0", "Hello."])
    output = pexpect.run(command, env=ctl.environment, encoding="utf-8")
    assert "TTFT" in output
    assert "context" in output


def test_serve_answers_http_until_ctrl_c(ctl):
    port = free_port()
    process = subprocess.Popen(
        [*CTL, "serve", "--port", str(port)], env=ctl.environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert f"http://127.0.0.1:{port}/v1" in line
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        taken = ctl("serve", "--port", str(port))
        assert taken.returncode == 1
        assert str(port) in taken.stderr
        assert taken.stderr.count("\n") == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
