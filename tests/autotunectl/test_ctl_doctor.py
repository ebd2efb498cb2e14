"""autotunectl doctor: what is wrong, what to do about it, and its exit status."""

from __future__ import annotations

import json

import pytest
from autotune.v1 import engine_service_pb2, engine_service_pb2_grpc
from autotune.version import __version__

from autotunectl.commands import doctor
from autotunectl.output import Style
from tests.fakes.fake_daemon import FakeDaemon

KIND = engine_service_pb2.Finding
PROBLEM = KIND(
    code="default-model-missing",
    severity=KIND.SEVERITY_PROBLEM,
    subject="models",
    text='The default model "qwen3" is not there.',
    advice='Set models.default to a model that "autotunectl ls" shows.',
)
WARNING = KIND(
    code="memory-pressure",
    severity=KIND.SEVERITY_WARNING,
    subject="memory",
    text="Memory pressure is high.",
    advice="Close programs that take much memory.",
)
INFO = KIND(
    code="found", severity=KIND.SEVERITY_INFO, subject="ollama", text="It was found at its usual place."
)
MISMATCH = (
    f"warning  daemon: autotuned 9.9.9 is running but autotunectl is {__version__}.\n"
    '         Run "autotunectl stop" and the next command starts the new one.\n'
)
MEMORY = "warning  memory: Memory pressure is high.\n         Close programs that take much memory.\n"


def test_nothing_wrong_is_one_line(ctl, daemon):
    result = ctl("doctor")
    assert (result.status, result.out, result.err) == (0, "Nothing is wrong.\n", "")
    assert json.loads(ctl("doctor", "--json").out) == {"findings": []}


def test_the_worst_comes_first_each_with_what_to_do(ctl, daemon):
    daemon.findings = [INFO, WARNING, PROBLEM]
    result = ctl("doctor")
    assert (result.status, result.err) == (1, "")
    assert result.out == (
        'problem  models: The default model "qwen3" is not there.\n'
        '         Set models.default to a model that "autotunectl ls" shows.\n'
        + MEMORY
        + "info     ollama: It was found at its usual place.\n"
    )


@pytest.mark.parametrize(("findings", "status"), [([INFO], 0), ([WARNING, INFO], 0), ([WARNING, PROBLEM], 1)])
def test_only_a_problem_is_a_failure(ctl, daemon, findings, status):
    daemon.findings = findings
    assert ctl("doctor").status == status
    assert ctl("doctor", "--json").status == status


def test_the_exit_status_is_in_the_help(ctl):
    assert "Exit status 1 when there is a problem, else 0." in " ".join(ctl("doctor", "--help").out.split())


def test_findings_as_json(ctl, daemon):
    daemon.findings = [WARNING]
    assert json.loads(ctl("doctor", "--json").out) == {
        "findings": [
            {
                "code": "memory-pressure",
                "severity": "warning",
                "subject": "memory",
                "text": "Memory pressure is high.",
                "advice": "Close programs that take much memory.",
            }
        ]
    }


def test_a_daemon_of_another_version_is_a_finding_and_told_once(ctl, daemon):
    daemon.version = "9.9.9"
    daemon.findings = [WARNING, INFO]
    result = ctl("doctor")
    assert (result.status, result.err) == (0, "")
    assert result.out == MISMATCH + MEMORY + "info     ollama: It was found at its usual place.\n"
    printed = json.loads(ctl("doctor", "--json").out)["findings"]
    assert (printed[0]["code"], printed[0]["severity"]) == ("version-mismatch", "warning")
    daemon.findings = [PROBLEM]
    assert ctl("doctor").out.endswith(MISMATCH)


def test_a_daemon_that_is_too_old_to_be_asked_is_the_problem(ctl, monkeypatch):
    monkeypatch.setattr(engine_service_pb2_grpc, "add_EngineServiceServicer_to_server", lambda *_: None)
    with FakeDaemon() as old:
        old.version = "9.9.9"
        result = ctl("doctor", "--address", old.address)
        assert (result.status, result.err) == (1, "")
        assert result.out == MISMATCH.replace("warning", "problem")
        old.version = __version__
        result = ctl("doctor", "--address", old.address)
        assert (result.status, result.out) == (5, "")
        assert result.err == (
            'The running daemon does not know this call; stop it with "autotunectl stop" and try again.\n'
        )


def test_severities_are_coloured_and_hostile_texts_cannot_steer_the_terminal():
    hostile = KIND(severity=KIND.SEVERITY_PROBLEM, subject="a\x1b[2J", text="b\nc", advice="d\x07")
    assert doctor.render([hostile]) == "problem  a[2J: b c\n         d\n"
    coloured = doctor.render([hostile, WARNING, INFO], Style(colours=True))
    assert coloured.startswith("\x1b[31mproblem  \x1b[0ma[2J")
    assert "\x1b[1mwarning  \x1b[0mmemory" in coloured
    assert "\x1b[2minfo     \x1b[0mollama" in coloured
