"""Sessions: what is expected of a loop, what is remembered of it, and how much memory that takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    Message,
    ProfileName,
    Role,
    TextPart,
    Tool,
    ToolResultPart,
)
from autotuned.services import sessions as module
from autotuned.services.learning import Learning
from autotuned.services.sessions import Sessions
from autotuned.storage.learning import SqliteLearningStore
from tests.services.scripted import HandClock

TOOL = Tool("ls", "lists files", '{"type":"object"}')
DIGEST = "digest"


def loop(question, turns=1, client="editor", **changes):
    """The request of one turn of an agent's loop, in the fast profile."""
    messages = [Message(Role.USER, (TextPart(question),))]
    for turn in range(1, turns):
        messages += [
            Message(Role.ASSISTANT, (TextPart(f"step {turn}"),)),
            Message(Role.TOOL, (ToolResultPart(str(turn), "ls", "a.txt " * 20),)),
        ]
    return GenerationRequest(
        model="pocket",
        input=ChatInput(tuple(messages), (TOOL,)),
        profile=ProfileName.FAST,
        client=client,
        **changes,
    )


PROMPT_TOKENS = 100


def expected_tokens(house, request, digest=DIGEST, prompt_tokens=PROMPT_TOKENS):
    return house.sessions.expected_tokens(request, digest, prompt_tokens)


class House:
    def __init__(self, database):
        self.clock = HandClock()
        self.store = SqliteLearningStore(database)
        self.learning = Learning(store=self.store)
        self.sessions = Sessions(learning=self.learning, store=self.store, clock=self.clock)

    async def close(self):
        await self.sessions.close()
        await self.learning.close()


@pytest.fixture
async def house(database):
    made = House(database)
    await made.sessions.open()
    yield made
    await made.close()


@pytest.fixture
async def database(tmp_path):
    from autotuned.storage.db import Database

    async with Database(tmp_path / "autotune.db") as database:
        yield database


def run_loop(house, question, turns, tokens_a_turn, client="editor"):
    """A whole loop; returns what was expected at each turn."""
    expected = []
    for turn in range(1, turns + 1):
        request = loop(question, turn, client)
        expected.append(expected_tokens(house, request, DIGEST))
        house.sessions.ended_turn(request, DIGEST, 500 + turn * tokens_a_turn)
    return expected


async def test_a_chat_is_expected_to_need_nothing_beyond_itself(house):
    request = replace(loop("Hello"), input=ChatInput((Message(Role.USER, (TextPart("Hello"),)),)))
    assert expected_tokens(house, request, DIGEST) == 0


async def test_a_first_loop_is_sized_by_the_default_for_all_of_its_turns(house):
    first, *others = run_loop(house, "Fix the bug.", turns=20, tokens_a_turn=100)
    assert first == PROMPT_TOKENS + 20 * 300 + 512
    assert set(others) == {first}


async def test_the_next_loop_is_sized_by_what_the_first_came_to(house):
    run_loop(house, "Fix the bug.", turns=20, tokens_a_turn=100)
    assert run_loop(house, "Fix the other bug.", turns=3, tokens_a_turn=100) == [2500, 2500, 2500]


async def test_loops_of_another_client_or_model_say_nothing(house):
    run_loop(house, "Fix the bug.", turns=20, tokens_a_turn=400)
    other = loop("Fix the bug.", client="another")
    assert expected_tokens(house, other, DIGEST) == PROMPT_TOKENS + 20 * 300 + 512
    assert expected_tokens(house, loop("Fix the bug."), "another digest") == PROMPT_TOKENS + 6000 + 512


async def test_a_loop_that_outgrows_what_was_expected_is_sized_anew_once(house):
    run_loop(house, "Fix the bug.", turns=2, tokens_a_turn=100)
    assert expected_tokens(house, loop("Another."), DIGEST) == 700
    longer, still_longer = loop("Another.", turns=10), loop("Another.", turns=11)
    assert expected_tokens(house, longer, prompt_tokens=1000) == 1000 + 6000 + 512
    assert expected_tokens(house, still_longer, prompt_tokens=1100) == 1000 + 6000 + 512


async def test_what_sessions_came_to_becomes_the_usual_context_of_the_model(house):
    for number in range(10):
        house.sessions.ended_turn(loop(f"Question {number}."), DIGEST, 100 * (number + 1))
    assert house.learning.of(DIGEST).usual_context_tokens == 900
    assert house.learning.of("another digest").usual_context_tokens == 0


async def test_sessions_survive_a_restart_unless_they_are_old(house, database):
    run_loop(house, "Fix the bug.", turns=4, tokens_a_turn=100)
    await house.close()
    for age_seconds, expected in ((0.0, 900), (module.REMEMBERED_SECONDS + 1, None)):
        again = House(database)
        again.clock.seconds = house.clock.seconds + age_seconds
        await again.sessions.open()
        request = loop("Another.")
        default = PROMPT_TOKENS + 6000 + 512
        assert expected_tokens(again, request, DIGEST) == (expected or default)
        await again.close()


async def test_a_session_that_is_to_leave_no_trace_is_not_stored(house):
    house.sessions.ended_turn(loop("Secret.", discard=True), DIGEST, 1000)
    house.sessions.ended_turn(loop("Open."), DIGEST, 1000)
    await house.close()
    assert [size.largest_tokens for size in await house.store.sessions(0.0)] == [1000]


async def test_memory_is_bounded_whatever_clients_send(house, monkeypatch):
    monkeypatch.setattr(module, "MOST_SESSIONS", 5)
    monkeypatch.setattr(module, "MOST_MODELS", 3)
    monkeypatch.setattr(module, "MOST_EXPECTED", 4)
    for digest in range(5):
        for number in range(20):
            request = loop(f"Question {number}.")
            expected_tokens(house, request, str(digest))
            house.sessions.ended_turn(request, str(digest), 100)
    assert list(house.sessions._sizes) == ["2", "3", "4"]
    assert {len(sizes) for sizes in house.sessions._sizes.values()} == {5}
    assert len(house.sessions._expected) == 4
