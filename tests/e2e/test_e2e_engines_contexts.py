"""Programs that disagree about the context: raw, Ollama loads the model for each request; here, never again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import autotune
import pytest

from tests.e2e.conftest import RunningDaemon, running_daemon, short_home
from tests.engine_house import Background, House, opened_house, qualified
from tests.fakes.ollama.asking import chat

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
REQUESTS_COUNT = 10


@dataclass(frozen=True, slots=True)
class Setting:
    """A daemon in front of the double of Ollama."""

    house: House
    beside: Background
    daemon: RunningDaemon

    def counts(self) -> tuple[int, int]:
        """Loads, and those of them that took the place of the same model, since the double began."""
        page = self.beside.do(self.house.ollama.page())
        return page["loads"], page["reloads"]

    def contexts_sent(self) -> set[Any]:
        """The contexts in what the double was asked since the model was loaded; None where there was none."""
        bodies = self.beside.do(self.house.ollama.page())["bodies"]
        return {
            each["body"].get("options", {}).get("num_ctx") for each in bodies if "messages" in each["body"]
        }


@pytest.fixture
def setting() -> Iterator[Setting]:
    with (
        short_home() as folder,
        opened_house(folder, engines=("ollama",)) as (house, beside),
        running_daemon(**house.environment) as daemon,
    ):
        yield Setting(house, beside, daemon)


def alternate(daemon: RunningDaemon, context_tokens: int, *, explicit_first: bool) -> None:
    """One program names a context, the other does not, in turn."""
    with (
        autotune.Client(daemon.address, "editor") as editor,
        autotune.Client(daemon.address, "chat") as other,
    ):
        for number in range(REQUESTS_COUNT):
            is_explicit = (number % 2 == 0) == explicit_first
            program = editor if is_explicit else other
            options = {"context_tokens": context_tokens} if is_explicit else {}
            reply = program.chat(QUESTION, model=qualified("ollama"), temperature=0, **options)
            assert (reply.text, reply.engine) == (ANSWER, "ollama")


def test_raw_each_request_is_a_load(setting):
    for number in range(REQUESTS_COUNT):
        options = {"options": {"num_ctx": 2048}} if number % 2 == 0 else {}
        answer = setting.beside.do(chat(setting.house.ollama, **options))
        assert answer.json()["message"]["content"] == ANSWER
    assert setting.counts() == (REQUESTS_COUNT, REQUESTS_COUNT - 1)


@pytest.mark.parametrize("context_tokens", [1024, 4096], ids=["less than the other", "more"])
def test_through_the_daemon_there_is_one_load_for_all(setting, context_tokens):
    alternate(setting.daemon, context_tokens, explicit_first=True)
    assert setting.counts() == (1, 0)
    assert setting.contexts_sent() == {context_tokens}


def test_a_program_that_comes_later_with_a_larger_context_causes_one_growth(setting):
    alternate(setting.daemon, 4096, explicit_first=False)
    assert setting.counts()[0] == 2
    before = setting.counts()
    alternate(setting.daemon, 4096, explicit_first=False)
    alternate(setting.daemon, 2048, explicit_first=True)
    assert setting.counts() == before
