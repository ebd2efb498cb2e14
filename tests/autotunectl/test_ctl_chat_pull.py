"""/pull within a conversation."""

from __future__ import annotations

import signal

import click
import grpc
import pytest
from autotune.v1 import model_service_pb2

from autotunectl.pull_display import PhaseLines
from tests.autotunectl.conversing import converse
from tests.fakes.download_messages import reason, recommendation
from tests.fakes.fake_messages import listed_model, rich_status
from tests.fakes.refusing import abort

HERE = "qwen3:8b is here; /model qwen3:8b switches to it.\n"


def pulls(daemon) -> list[tuple[str, bool]]:
    return [
        (request.model, request.allow_too_large)
        for request in daemon.requests
        if isinstance(request, model_service_pb2.PullModelRequest)
    ]


@pytest.fixture
def answers(monkeypatch):
    """What the person answers to the question; an exception is raised."""
    asked: list[str] = []

    def answer(reply: bool | type[BaseException]) -> list[str]:
        def confirm(text: str, **_: object) -> bool:
            asked.append(text)
            if isinstance(reply, bool):
                return reply
            raise reply

        monkeypatch.setattr(click, "confirm", confirm)
        return asked

    return answer


def test_a_model_that_was_pulled_can_be_talked_to_at_once(daemon, capsys):
    daemon.models = [listed_model("pocket"), listed_model("qwen3:8b")]
    conversation = converse(daemon, ["/pull qwen3:8b", "/model qwen3:8b", "Hello?"])
    assert pulls(daemon) == [("qwen3:8b", False)]
    assert conversation.model == "qwen3:8b"
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{HERE}The model is qwen3:8b.\n")
    assert "\nqwen3:8b for ollama\n  size     4.0 GiB as Q4_K_M in 2 files, " in printed.err
    assert "\nDownloading 4.0 GiB, 1.0 GiB of it here.\n" in printed.err


@pytest.mark.parametrize(
    ("reply", "printed"),
    [
        (True, "huge is here; /model huge switches to it.\n"),
        (False, "Nothing was downloaded.\n"),
        (click.Abort, "Nothing was downloaded.\n"),
    ],
)
def test_what_does_not_fit_is_a_question(daemon, capsys, answers, reply, printed):
    daemon.too_large = {"huge"}
    asked = answers(reply)
    converse(daemon, ["/pull huge"])
    out, err = capsys.readouterr()
    assert out == printed
    assert pulls(daemon) == [("huge", False), *([("huge", True)] if reply is True else [])]
    assert '"qwen3:4b" fits.' in " ".join(err.split())
    assert asked == ["Download huge all the same?"]


def test_ctrl_c_stops_the_download_and_not_the_conversation(daemon, capsys, monkeypatch):
    show = PhaseLines.show

    def show_and_interrupt(self, event):
        show(self, event)
        if event.HasField("progress") and event.progress.done_bytes:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(PhaseLines, "show", show_and_interrupt)
    converse(daemon, ["/pull qwen3:8b", "/system"])
    assert capsys.readouterr().out == (
        "Stopped; what came is kept. Go on with: /pull qwen3:8b\nThere are no instructions.\n"
    )


def test_a_failure_is_a_sentence_and_the_conversation_goes_on(daemon, capsys):
    def script(request, context):
        yield from ()
        abort(
            context, rich_status(grpc.StatusCode.UNAVAILABLE, "SOURCE_UNREACHABLE", "No answer; try again.")
        )

    daemon.pull_script = script
    converse(daemon, ["/pull qwen3:8b", "/system"])
    assert capsys.readouterr() == ("There are no instructions.\n", "No answer; try again.\n")


def test_without_a_name_it_shows_what_suits(daemon, capsys):
    daemon.recommendations = [recommendation(), recommendation("qwen3:4b")]
    converse(daemon, ["/pull"])
    printed = capsys.readouterr().out
    assert [line.split()[-1] for line in printed.splitlines()[:3]] == ["NAME", "qwen3:8b", "qwen3:4b"]
    assert printed.endswith("\n/pull NAME downloads one of them.\n")
    assert pulls(daemon) == []


def test_without_a_name_where_nothing_fits_it_says_why(daemon, capsys):
    daemon.recommendations = []
    daemon.recommend_reasons = [reason("smallest", "The smallest one needs 700.0 MiB.")]
    converse(daemon, ["/pull"])
    assert "  why      The smallest one needs 700.0 MiB.\n" in capsys.readouterr().out
