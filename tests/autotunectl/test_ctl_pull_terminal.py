"""autotunectl pull at a terminal: the bar, the questions, Ctrl-C."""

from __future__ import annotations

import pytest
from autotune.v1 import model_service_pb2

from tests.autotunectl.terminal import COLUMNS, CTRL_C, CTRL_D, ENTER, terminal
from tests.fakes.download_messages import GIB, offer, progress, pulled, recommendation

DOWNLOADING = model_service_pb2.PULL_PHASE_DOWNLOADING
HERE = "qwen3:8b is here; talk to it: autotunectl chat --model qwen3:8b\r\n"
GO_ON = "Stopped; what came is kept. Go on with: autotunectl pull"
QUESTION = r'"qwen3:4b"\s+fits\.\r\nDownload huge all the same\? \[y/N\]: '
NUMBERS = r"2\.0 GiB of 4\.0 GiB · 40\.0 MiB/s · 1 min 15 s left"
CHOICE = "Which one\\? 1 to 2, Enter for none: "


@pytest.fixture
def halfway(daemon):
    """A download that stands still at half until the test releases it."""

    def script(request, context):
        yield progress(model_service_pb2.PULL_PHASE_RESOLVING)
        yield offer(request.model)
        yield progress(DOWNLOADING, 2 * GIB, 4 * GIB)
        daemon.hold(context)
        yield progress(model_service_pb2.PULL_PHASE_VERIFYING, 4 * GIB, 4 * GIB)
        yield pulled(request.model)

    daemon.pull_script = script
    return daemon


def pulls(daemon) -> list[tuple[str, str, bool]]:
    return [
        (request.model, request.engine, request.allow_too_large)
        for request in daemon.requests
        if isinstance(request, model_service_pb2.PullModelRequest)
    ]


def test_a_bar_shows_bytes_rate_and_time_left_and_is_gone_in_the_end(halfway):
    with terminal("pull", "qwen3:8b") as person:
        person.screen.expect(NUMBERS)
        drawn = person.lines(person.screen.before + person.screen.after)
        halfway.release.set()
        status, rest = person.end()
    assert status == 0
    assert drawn[-1].startswith("downloading ━")
    assert "  size     4.0 GiB as Q4_K_M in 2 files, 3.0 GiB of it still to come" in drawn
    # The terminal adds ^C to the line of the bar, which it must not break.
    assert [line for line in person.lines(rest) if len(line) > COLUMNS - len("^C")] == []
    # What is left after the last line was erased is the result alone.
    assert rest.rpartition("\x1b[2K")[2].replace("\x1b[?25h", "").lstrip("\r") == HERE


def test_a_dumb_terminal_gets_lines(daemon):
    with terminal("pull", "qwen3:8b", TERM="dumb") as person:
        status, text = person.end()
    assert status == 0
    assert "\x1b" not in text
    assert "Downloading 4.0 GiB, 1.0 GiB of it here.\r\n50 %: 2.0 GiB of 4.0 GiB" in text
    assert text.endswith(HERE)


@pytest.mark.parametrize("options", [[], ["--engine", "llamacpp"], ["--yes"]])
def test_ctrl_c_stops_the_download_and_names_the_command_that_goes_on(halfway, options):
    with terminal("pull", "qwen3:8b", *options) as person:
        person.screen.expect("left")
        person.screen.send(CTRL_C)
        assert halfway.cancelled.wait(30)
        status, text = person.end()
    assert status == 130
    assert person.lines(text)[-1] == " ".join([GO_ON, "qwen3:8b", *options])
    assert "Traceback" not in text


def test_what_does_not_fit_is_a_question(daemon):
    daemon.too_large = {"huge"}
    with terminal("pull", "huge") as person:
        person.screen.expect(QUESTION)
        person.screen.send(f"y{ENTER}")
        status, text = person.end()
    assert (status, text.endswith("huge is here; talk to it: autotunectl chat --model huge\r\n")) == (0, True)
    assert pulls(daemon) == [("huge", "", False), ("huge", "", True)]


@pytest.mark.parametrize("reply", ["", "n"])
def test_without_consent_nothing_that_does_not_fit_is_downloaded(daemon, reply):
    daemon.too_large = {"huge"}
    with terminal("pull", "huge") as person:
        person.screen.expect(QUESTION)
        person.screen.send(reply + ENTER)
        status, text = person.end()
    assert (status, person.lines(text)[-1]) == (0, "Nothing was downloaded.")
    assert pulls(daemon) == [("huge", "", False)]


def test_ctrl_c_at_the_question_downloads_nothing(daemon):
    daemon.too_large = {"huge"}
    with terminal("pull", "huge") as person:
        person.screen.expect(QUESTION)
        person.screen.send(CTRL_C)
        status, text = person.end()
    assert (status, text) == (130, "^C\r\n")
    assert pulls(daemon) == [("huge", "", False)]


def test_with_yes_it_asks_nothing(daemon):
    daemon.too_large = {"huge"}
    with terminal("pull", "huge", "--yes") as person:
        status, text = person.end()
    assert (status, "[y/N]" in text) == (0, False)
    assert pulls(daemon) == [("huge", "", True)]


def test_consent_is_part_of_the_command_that_goes_on(halfway):
    halfway.too_large = {"huge"}
    with terminal("pull", "huge") as person:
        person.screen.expect(QUESTION)
        person.screen.send(f"y{ENTER}")
        person.screen.expect("left")
        person.screen.send(CTRL_C)
        status, text = person.end()
    assert (status, person.lines(text)[-1]) == (130, f"{GO_ON} huge --yes")


@pytest.fixture
def two_picks(daemon):
    daemon.recommendations = [recommendation("qwen3:8b"), recommendation("qwen3:4b")]
    return daemon


def test_without_a_name_a_person_chooses_by_number(two_picks):
    with terminal("pull", "--engine", "llamacpp") as person:
        person.screen.expect(CHOICE)
        assert "1  Qwen3 8B  5.0 GiB      23 tokens/s  qwen3:8b\r\n" in person.screen.before
        for wrong in ("3", "-1", "qwen3:8b"):
            person.screen.send(f"{wrong}{ENTER}")
            person.screen.expect(f"\r\n{wrong} is not a number of the list\\.\r\n{CHOICE}")
        person.screen.send(f"2{ENTER}")
        status, text = person.end()
    assert status == 0
    assert text.endswith("qwen3:4b is here; talk to it: autotunectl chat --model qwen3:4b\r\n")
    assert pulls(two_picks) == [("qwen3:4b", "llamacpp", False)]


def test_a_person_may_choose_nothing(two_picks):
    with terminal("pull") as person:
        person.screen.expect(CHOICE)
        person.screen.send(ENTER)
        status, text = person.end()
    assert (status, person.lines(text)) == (0, ["Nothing was downloaded."])
    assert pulls(two_picks) == []


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_who_leaves_the_choice_gets_a_line_of_its_own_again(two_picks, key):
    with terminal("pull") as person:
        person.screen.expect(CHOICE)
        person.screen.send(key)
        status, text = person.end()
    assert (status, text[-2:], pulls(two_picks)) == (130, "\r\n", [])


def test_a_pull_within_a_conversation_stops_at_ctrl_c_and_the_conversation_goes_on(halfway):
    with terminal("chat") as person:
        person.screen.expect(r"\x1b\[\?2004h")
        person.screen.send(f"/pull qwen3:8b{ENTER}")
        person.screen.expect(NUMBERS)
        person.screen.send(CTRL_C)
        person.screen.expect("Stopped; what came is kept. Go on with: /pull qwen3:8b\r\n")
        assert halfway.cancelled.wait(30)
        person.screen.expect(r"\x1b\[\?2004h")
        person.screen.send(f"/quit{ENTER}")
        status, _ = person.end()
    assert status == 0
