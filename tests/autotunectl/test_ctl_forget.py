"""autotunectl forget: asks, deletes, says what it freed."""

from __future__ import annotations

import json

import pytest

from tests.autotunectl.conftest import TerminalInput


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


def deleted(daemon) -> list[str]:
    return [request.model for request in daemon.requests if type(request).__name__ == "DeletePrefixesRequest"]


def test_it_asks_and_deletes_everything(ctl, daemon, answers):
    asked = answers(True)
    assert TerminalInput().isatty()
    result = ctl("forget")
    assert (result.status, result.out) == (
        0,
        "Deleted 3 saved KV prefixes; 12.0 MiB on disk are free again.\n",
    )
    assert asked == ["Delete 3 saved KV prefixes (12.0 MiB)?"]
    assert deleted(daemon) == [""]


def test_a_no_deletes_nothing(ctl, daemon, answers):
    asked = answers(False)
    result = ctl("forget", "pocket")
    assert (result.status, result.out, result.err) == (0, "", "Nothing was deleted.\n")
    assert asked == ["Delete those of pocket, of 3 saved KV prefixes (12.0 MiB) in all?"]
    assert deleted(daemon) == []


def test_with_yes_it_asks_nobody(ctl, daemon):
    assert ctl("forget", "pocket", "--yes", stdin=b"").out == (
        "Deleted 3 saved KV prefixes of pocket; 12.0 MiB on disk are free again.\n"
    )
    assert deleted(daemon) == ["pocket"]
    printed = json.loads(ctl("forget", "--yes", "--json").out)
    assert printed == {"model": "", "deleted_count": 3, "freed_bytes": 12 << 20}


def test_without_a_terminal_nothing_is_deleted(ctl, daemon):
    result = ctl("forget", stdin=b"y\n")
    assert result.status == 2
    assert deleted(daemon) == []


def test_where_nothing_is_saved_it_says_so(ctl, daemon, answers):
    asked = answers(True)
    daemon.saved_prefixes_count = 0
    assert ctl("forget").out == "There are no saved KV prefixes.\n"
    assert ctl("forget", "--yes", "pocket").out == "There are no saved KV prefixes of pocket.\n"
    assert asked == []


def test_a_name_that_was_mistyped_is_told(ctl, daemon):
    daemon.saved_prefixes_count = 0
    result = ctl("forget", "poket", "--yes")
    assert result.status == 4
    assert 'did you mean "pocket"?' in result.err


def test_one_is_singular(ctl, daemon):
    daemon.saved_prefixes_count = 1
    assert ctl("forget", "-y").out == "Deleted 1 saved KV prefix; 4.0 MiB on disk are free again.\n"
