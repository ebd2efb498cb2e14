"""A working day of three programs that share one model: 200 requests, the same ones every time.

An editor completes code while somebody types, a chat window has short conversations, an agent runs
loops that read files until its context is long. Between blocks of work the machine rests for longer
than the model is kept. Each request goes on from the one before in its conversation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

SEED = 11
REQUESTS = 200
# Of every block of work: so many conversations of each kind.
BLOCKS = 5
# The block of work whose agent reads large files.
LONG_BLOCK = 1
TEXT = (
    "the cache holds keys and values of every token so that nothing is computed twice when a prompt goes on "
    "model server memory context request answer layer head batch slot load free page file read write time"
)
TOOL = '{"type":"object","properties":{"path":{"type":"string","description":"file to read"}},"required":["path"]}'


@dataclass(frozen=True)
class Step:
    """One request. ``pieces`` are the texts of its turns so far; the last one is new.

    ``reply_tokens`` is the limit that the client sets. ``rests_before`` is True where the model has
    been unloaded since the step before.
    """

    client: str
    conversation: str
    pieces: tuple[str, ...]
    reply_tokens: int
    rests_before: bool = False


def day() -> list[Step]:
    """The steps in their order."""
    chance = random.Random(SEED)
    steps: list[Step] = []
    for block in range(BLOCKS):
        conversations = [
            *(_editor(chance, f"{block}-editor-{number}") for number in range(2)),
            *(_chat(chance, f"{block}-chat-{number}") for number in range(2)),
            _agent(chance, f"{block}-agent", longest_result=1500 if block == LONG_BLOCK else 300),
        ]
        mixed = list(_interleaved(chance, conversations))
        steps += [replace(mixed[0], rests_before=block > 0), *mixed[1:]]
    return steps[:REQUESTS]


def _interleaved(chance: random.Random, conversations: list[list[Step]]) -> Iterator[Step]:
    """A few requests of one program in a row, then of another: nobody types in three windows at once."""
    while conversations:
        conversation = chance.choice(conversations)
        for _ in range(chance.randint(2, 5)):
            if conversation:
                yield conversation.pop(0)
        conversations = [each for each in conversations if each]


def _editor(chance: random.Random, name: str) -> list[Step]:
    pieces = (_text(chance, chance.randint(100, 700)),)
    steps = []
    for _ in range(8):
        pieces = (*pieces, _text(chance, chance.randint(8, 40)))
        steps.append(Step("editor", name, pieces, reply_tokens=24))
    return steps


def _chat(chance: random.Random, name: str) -> list[Step]:
    pieces: tuple[str, ...] = ()
    steps = []
    for _ in range(6):
        pieces = (*pieces, _text(chance, chance.randint(8, 80)))
        steps.append(Step("chat", name, pieces, reply_tokens=400))
        pieces = (*pieces, _text(chance, chance.randint(40, 200)))  # what the model is taken to have said
    return steps


def _agent(chance: random.Random, name: str, longest_result: int) -> list[Step]:
    pieces: tuple[str, ...] = (_text(random.Random(SEED), 1200) + _text(chance, 60),)
    steps = []
    for _ in range(12):
        steps.append(Step("agent", name, pieces, reply_tokens=200))
        pieces = (
            *pieces,
            _text(chance, 30),
            _text(chance, chance.randint(longest_result // 7, longest_result)),
        )
    return steps


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(TEXT.split(), k=words))
