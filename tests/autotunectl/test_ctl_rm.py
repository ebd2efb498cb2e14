"""autotunectl rm: asks, deletes, says what it freed and where."""

from __future__ import annotations

import json

import pytest

from autotunectl.commands import rm
from tests.autotunectl.terminal import CTRL_C, ENTER, terminal
from tests.fakes.download_messages import reason
from tests.fakes.fake_messages import engine, listed_model


@pytest.fixture
def two_copies(daemon):
    daemon.engines = [engine("llamacpp"), engine("ollama")]
    daemon.models = [listed_model("qwen3", "ollama", "llamacpp", size_bytes=5 << 30, aliases=["qwen3:8b"])]
    return daemon


@pytest.fixture
def answers(monkeypatch):
    """What the person answers to the question."""

    def answer(word: bool) -> list[str]:
        asked: list[str] = []

        def confirm(text: str, **_) -> bool:
            asked.append(text)
            return word

        monkeypatch.setattr("click.confirm", confirm)
        return asked

    return answer


def deleted(daemon) -> list[tuple[str, str]]:
    return [
        (request.model, request.engine)
        for request in daemon.requests
        if type(request).__name__ == "DeleteModelRequest"
    ]


def test_it_asks_and_deletes_every_copy(ctl, two_copies, answers):
    asked = answers(True)
    result = ctl("rm", "qwen3:8b")
    assert (result.status, result.err) == (0, "")
    assert result.out == (
        "Deleted qwen3:8b; 5.0 GiB on disk are free again.\n  http://ollama.example\n  /models/qwen3.gguf\n"
    )
    assert asked == ["Delete qwen3 (5.0 GiB) from ollama and llamacpp?"]
    assert deleted(two_copies) == [("qwen3:8b", "")]


def test_one_copy_can_be_chosen(ctl, two_copies, answers):
    asked = answers(True)
    assert ctl("rm", "qwen3", "--engine", "llamacpp").out.endswith(" free again.\n  /models/qwen3.gguf\n")
    assert asked == ["Delete qwen3 (5.0 GiB) from llamacpp?"]
    assert deleted(two_copies) == [("qwen3", "llamacpp")]


def test_a_no_deletes_nothing(ctl, two_copies, answers):
    answers(False)
    result = ctl("rm", "qwen3")
    assert (result.status, result.out, result.err) == (0, "", "Nothing was deleted.\n")
    assert deleted(two_copies) == []


@pytest.mark.parametrize(
    ("reply", "status", "last_line"),
    [
        (f"y{ENTER}", 0, "  /models/qwen3.gguf"),
        (ENTER, 0, "Nothing was deleted."),
        (CTRL_C, 130, None),
    ],
)
def test_a_person_is_asked_at_the_terminal(two_copies, reply, status, last_line):
    with terminal("rm", "qwen3") as person:
        person.screen.expect(r"Delete qwen3 \(5\.0 GiB\) from ollama and llamacpp\? \[y/N\]: ")
        person.screen.send(reply)
        ended, text = person.end()
    assert ended == status
    assert last_line is None or person.lines(text)[-1] == last_line
    assert text.endswith("\r\n")
    assert "Traceback" not in text
    assert len(deleted(two_copies)) == (1 if reply.startswith("y") else 0)


def test_with_yes_it_asks_nobody(ctl, two_copies):
    assert ctl("rm", "qwen3", "-y", stdin=b"").status == 0
    printed = json.loads(ctl("rm", "qwen3", "--yes", "--json", "--engine", "llamacpp").out)
    assert printed == {"model": "qwen3", "freed_bytes": 5 << 30, "paths": ["/models/qwen3.gguf"], "kept": []}


@pytest.mark.parametrize("arguments", [["rm", "qwen3"], ["rm", "qwen3", "--json"]])
def test_without_a_person_nothing_is_deleted(ctl, two_copies, arguments):
    result = ctl(*arguments, stdin=b"y\n")
    assert (result.status, result.out) == (2, "")
    assert "add --yes to delete" in result.err
    assert not two_copies.requests


def test_a_copy_that_stays_is_told_with_what_to_do_about_it(ctl, two_copies):
    sentence = "The copy of lmstudio is not autotune's to delete; use LM Studio's own list of models."
    two_copies.kept = [reason("kept", sentence)]
    result = ctl("rm", "qwen3", "-y")
    assert result.status == 0
    assert " ".join(result.out.split()).endswith(f"/models/qwen3.gguf Not every copy: {sentence}")
    assert json.loads(ctl("rm", "qwen3", "-y", "--json").out)["kept"] == [{"code": "kept", "text": sentence}]


def test_a_name_that_was_mistyped_is_told_before_anything_is_asked(ctl, two_copies, answers):
    asked = answers(True)
    result = ctl("rm", "qwen")
    assert (result.status, asked) == (4, [])
    assert result.err.startswith('There is no model "qwen"; ')


def test_an_engine_that_there_is_not_is_called_by_its_option(ctl, two_copies):
    result = ctl("rm", "qwen3", "--engine", "olama", "-y")
    assert result.status == 5
    assert result.err.startswith('--engine: there is no engine "olama"; ')


def test_what_is_not_known_is_not_asked_about():
    assert rm.question_text(listed_model("x", places=[])) == "Delete x?"


def test_hostile_names_cannot_steer_the_terminal():
    from autotune.v1 import model_service_pb2

    response = model_service_pb2.DeleteModelResponse(paths=["/a\x1b[2J\nb"])
    text = rm.render("x\x1b[2J", response)
    assert text == "Deleted x[2J; 0 B on disk are free again.\n  /a[2J b\n"
