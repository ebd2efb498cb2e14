"""Who takes over a prewarmed beginning: one conversation, and no other by the same name."""

from __future__ import annotations

import pytest

from autotuned.core.chat import ChatInput, Message, RawPrompt, Role, TextPart, Tool
from autotuned.policy.prefixes import conversation_name
from autotuned.services import beginnings as module
from autotuned.services.beginnings import Beginnings

SYSTEM = Message(Role.SYSTEM, (TextPart("You are terse."),))
TOOLS = (Tool("ls", "lists files", "{}"),)


def asking(question, *before, tools=()):
    return ChatInput((*before, Message(Role.USER, (TextPart(question),))), tools)


def request_name(beginnings, prompt, incarnation="i"):
    return beginnings.of_request(incarnation, prompt, conversation_name(prompt))


def prewarm_name(beginnings, prompt, incarnation="i"):
    return beginnings.of_prewarm(incarnation, prompt, conversation_name(prompt))


@pytest.mark.parametrize(
    ("beginning", "whole"),
    [
        (ChatInput((SYSTEM,)), asking("Hello", SYSTEM)),
        (ChatInput((), TOOLS), asking("Hello", tools=TOOLS)),
        (ChatInput((SYSTEM,), TOOLS), asking("Hello", SYSTEM, tools=TOOLS)),
    ],
)
def test_the_first_conversation_keeps_what_it_took_over(beginning, whole):
    beginnings = Beginnings()
    name = prewarm_name(beginnings, beginning)
    assert prewarm_name(beginnings, beginning) == name
    assert request_name(beginnings, whole) == name
    assert request_name(beginnings, whole) == name


def test_others_have_names_of_their_own():
    beginnings = Beginnings()
    first_name = prewarm_name(beginnings, ChatInput((SYSTEM,)))
    strangers = [asking("Hello"), asking("Hello", SYSTEM, tools=TOOLS), RawPrompt("Hello")]
    for prompt in strangers:
        assert request_name(beginnings, prompt) == conversation_name(prompt)
    assert request_name(beginnings, asking("One", SYSTEM)) == first_name
    second = asking("Two", SYSTEM)
    assert request_name(beginnings, second) == conversation_name(second)
    again = prewarm_name(beginnings, ChatInput((SYSTEM,)))
    assert again != first_name
    assert request_name(beginnings, asking("One", SYSTEM)) == first_name
    assert request_name(beginnings, asking("Three", SYSTEM)) == again


def test_a_prewarm_that_holds_a_question_has_the_name_of_its_conversation():
    beginnings = Beginnings()
    whole = asking("Hello", SYSTEM)
    assert prewarm_name(beginnings, whole) == conversation_name(whole) == request_name(beginnings, whole)


def test_another_incarnation_holds_nothing_of_it():
    beginnings = Beginnings()
    prewarm_name(beginnings, ChatInput((SYSTEM,)), "old")
    whole = asking("Hello", SYSTEM)
    assert request_name(beginnings, whole, "new") == conversation_name(whole)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_NAMES", 3)
    monkeypatch.setattr(module, "MOST_INCARNATIONS", 2)
    beginnings = Beginnings()
    for incarnation in "abc":
        for number in range(10):
            system = Message(Role.SYSTEM, (TextPart(f"You are number {number}."),))
            prewarm_name(beginnings, ChatInput((system,)), incarnation)
            if number < 5:
                request_name(beginnings, asking("Hello", system), incarnation)
    assert list(beginnings._incarnations) == ["b", "c"]
    for names in beginnings._incarnations.values():
        assert len(names.waiting) == len(names.taken) == 3
