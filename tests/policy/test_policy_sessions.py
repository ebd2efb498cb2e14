"""How large sessions are expected to become, and what names them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    Message,
    RawPrompt,
    Role,
    TextPart,
    Tool,
    ToolResultPart,
)
from autotuned.core.learning import SessionSize
from autotuned.policy.sessions import (
    AGENT,
    CHAT,
    MOST_UNKNOWN_TOKENS,
    expected_agent_tokens,
    kind,
    session_name,
    usual_tokens,
)

SYSTEM = Message(Role.SYSTEM, (TextPart("You are terse."),))
TOOL = Tool("ls", "lists files", "{}")

tokens = st.integers(0, 1 << 20)


def said(count):
    """So many messages of user and assistant in turns."""
    roles = (Role.USER, Role.ASSISTANT)
    return tuple(Message(roles[index % 2], (TextPart(f"text {index}"),)) for index in range(count))


def sized(largest_tokens):
    return SessionSize(
        session="s",
        client="c",
        model_digest="d",
        kind=AGENT,
        largest_tokens=largest_tokens,
        turns_count=1,
        ended_at=0.0,
    )


def request(*messages, tools=(), client="editor"):
    return GenerationRequest(model="pocket", input=ChatInput(messages, tools), client=client)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (ChatInput(said(1)), CHAT),
        (ChatInput((SYSTEM, *said(6))), CHAT),
        (ChatInput((SYSTEM, *said(7))), AGENT),
        (ChatInput(said(1), (TOOL,)), AGENT),
        (ChatInput(()), CHAT),
        (RawPrompt("x" * 100_000), CHAT),
    ],
)
def test_tools_or_a_long_history_make_a_session_an_agents(prompt, expected):
    assert kind(prompt) == expected


def test_the_turns_of_a_session_share_its_name():
    first = request(SYSTEM, *said(1), tools=(TOOL,))
    result = Message(Role.TOOL, (ToolResultPart("1", "ls", "a.txt"),))
    later = request(SYSTEM, *said(2), result, *said(5), tools=(TOOL,))
    assert session_name(first, "digest") == session_name(later, "digest")


def test_other_clients_models_questions_and_tools_are_other_sessions():
    first = request(SYSTEM, *said(1))
    others = (
        session_name(first, "digest"),
        session_name(first, "another digest"),
        session_name(replace(first, client="another client"), "digest"),
        session_name(request(SYSTEM, Message(Role.USER, (TextPart("else"),))), "digest"),
        session_name(request(SYSTEM, *said(1), tools=(TOOL,)), "digest"),
        session_name(request(*said(1)), "digest"),
    )
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("sizes", "usual"),
    [([], 0), ([700], 700), ([100, 5000], 5000), ([*range(100, 1100, 100)], 900), ([10] * 19 + [9999], 10)],
)
def test_the_usual_size_is_what_nine_of_ten_stayed_within(sizes, usual):
    assert usual_tokens(map(sized, sizes)) == usual


@given(st.lists(tokens, min_size=1))
def test_at_most_a_tenth_is_larger_than_usual(sizes):
    larger = sum(size > usual_tokens(map(sized, sizes)) for size in sizes)
    assert larger <= len(sizes) / 10


def test_a_loop_of_which_nothing_is_known_has_twenty_turns_of_300_tokens():
    assert expected_agent_tokens(1500, 0, ()) == 1500 + 20 * 300
    assert expected_agent_tokens(31_000, 0, ()) == MOST_UNKNOWN_TOKENS
    assert expected_agent_tokens(51_000, 0, ()) == 51_000


def test_a_loop_that_outgrew_what_is_known_goes_on_as_it_did():
    assert expected_agent_tokens(4000, 4, [sized(2100)]) == 4000 + 20 * 1000
    assert expected_agent_tokens(4000, 40, [sized(2100)]) == 4000 + 20 * 300


def test_a_loop_that_is_known_gets_what_such_loops_needed():
    assert expected_agent_tokens(1500, 3, [sized(2100), sized(1900)]) == 2100


@given(tokens, st.integers(0, 100), st.lists(tokens, max_size=20))
def test_never_less_is_expected_than_the_request_needs(now_tokens, turns_count, sizes):
    assert expected_agent_tokens(now_tokens, turns_count, map(sized, sizes)) >= now_tokens
