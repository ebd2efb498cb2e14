"""The KV states of conversations: how much of a prompt each one spares, and which ones stay in memory.

``generation`` begins every prompt here. One state is computed with at a time, the one that was used last;
the others are kept beside it as far as their budget goes. Caches that cannot go back to an earlier
token (windows that are full, recurrent layers) go back to copies that were taken at the ends of prompts.
Invariant: ``tokens`` of a state are exactly those that its caches hold.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from autotuned.core.plan import CONTEXT_CHECKPOINTS_COUNT

Caches = list[Any]


@dataclass(slots=True)
class Checkpoint:
    """What cannot be computed backwards, after so many tokens; None for a cache that can go back."""

    tokens_count: int
    parts: list[Any]


@dataclass(slots=True)
class Reply:
    """The latest prompt of a conversation and what was answered: a reply that goes on has these tokens."""

    prompt_text: str = ""
    prompt_tokens: list[int] = field(default_factory=list)
    text: str = ""
    tokens: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class State:
    """The state of one conversation."""

    caches: Caches
    tokens: list[int] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    reply: Reply = field(default_factory=Reply)

    @property
    def bytes_count(self) -> int:
        """What it takes."""
        parts = [part for checkpoint in self.checkpoints for part in checkpoint.parts if part is not None]
        return sum(int(part.nbytes) for part in (*leaves(self.caches), *parts) if not part.empty())

    @property
    def can_rewind(self) -> bool:
        """Whether it can go back to any token."""
        return all(can_rewind(part) for part in leaves(self.caches))

    def reusable(self, tokens: Sequence[int]) -> int:
        """How many tokens of a prompt it spares; at least the last one is left to be computed."""
        shared = min(_shared(self.tokens, tokens), len(tokens) - 1)
        if shared <= 0:
            return 0
        if shared == len(self.tokens) or self.can_rewind:
            return shared
        kept = [each.tokens_count for each in self.checkpoints if each.tokens_count <= shared]
        return max(kept, default=0)

    def rewind(self, tokens_count: int) -> None:
        """Goes back to so many tokens, a number that ``reusable`` has returned."""
        dropped = len(self.tokens) - tokens_count
        if not dropped:
            return
        parts: Sequence[Any] = ()
        if not self.can_rewind:
            parts = next(each.parts for each in self.checkpoints if each.tokens_count == tokens_count)
        for place, part in enumerate(leaves(self.caches)):
            if parts and parts[place] is not None:
                part.__dict__.update(copy.deepcopy(parts[place]).__dict__)
            else:
                part.trim(dropped)
        del self.tokens[tokens_count:]
        self.checkpoints = [each for each in self.checkpoints if each.tokens_count <= tokens_count]

    def check(self) -> None:
        """Takes a copy of what cannot go back, at this token."""
        if self.checkpoints and self.checkpoints[-1].tokens_count == len(self.tokens):
            return
        parts = [None if always_rewinds(part) else copy.deepcopy(part) for part in leaves(self.caches)]
        self.checkpoints.append(Checkpoint(len(self.tokens), parts))
        del self.checkpoints[:-CONTEXT_CHECKPOINTS_COUNT]

    def copied(self, tokens_count: int) -> State:
        """Another state with the first tokens of this one, which takes no more than they need."""
        other = State(copy.deepcopy(self.caches), list(self.tokens), copy.deepcopy(self.checkpoints))
        other.rewind(tokens_count)
        for part in leaves(other.caches):
            _compact(part)
        return other

    def lasting(self) -> State:
        """What of it is worth writing: a prompt that goes on from there finds it again.

        A reply may be rendered otherwise in the next prompt; who cannot go back is written without it.
        """
        count = len(self.tokens)
        if not self.can_rewind and self.checkpoints:
            count = self.checkpoints[-1].tokens_count
        lasting = self.copied(count)
        lasting.reply = self.reply
        return lasting


class States:
    """The states in memory. ``make`` makes empty caches; ``budget_bytes`` is for all but the current one."""

    def __init__(self, make: Callable[[], Caches], budget_bytes: int) -> None:
        self._make = make
        self._budget_bytes = budget_bytes
        self._states: dict[str, State] = {}  # the current one is the last

    def of(self, conversation: str) -> State | None:
        """The state of a conversation, where it is in memory."""
        return self._states.get(conversation)

    def begin(self, conversation: str, tokens: Sequence[int]) -> State:
        """The state that a prompt goes on from, made current: its tokens are a beginning of the prompt."""
        own = self._states.pop(conversation, None)
        best, spared = own, own.reusable(tokens) if own else 0
        for other in self._states.values():
            if (count := other.reusable(tokens)) > spared:
                best, spared = other, count
        if best is None or not spared:
            state = State(self._make())
        elif best is own or not self._budget_bytes:
            state = best
            state.rewind(spared)
        else:
            state = best.copied(spared)
        self._states = {name: each for name, each in self._states.items() if each is not state}
        self.put(conversation, state)
        return state

    def put(self, conversation: str, state: State) -> None:
        """Makes a state the current one of a conversation; the oldest ones leave beyond the budget."""
        self._states.pop(conversation, None)
        self._states[conversation] = state
        sizes = {name: each.bytes_count for name, each in self._states.items() if each is not state}
        taken = sum(sizes.values())
        for name, size in sizes.items():
            if taken <= self._budget_bytes and size <= self._budget_bytes:
                continue
            del self._states[name]
            taken -= size

    def drop(self, conversation: str) -> None:
        """Forgets a state, for example one whose computation failed half-way."""
        self._states.pop(conversation, None)


def leaves(caches: Sequence[Any]) -> Iterator[Any]:
    """The caches that hold arrays: those of a layer with several are looked into."""
    for cache in caches:
        if hasattr(cache, "caches"):
            yield from leaves(cache.caches)
        else:
            yield cache


def can_rewind(part: Any) -> bool:
    """Whether a cache can go back from where it is now; a window can until it is full."""
    return bool(part.is_trimmable()) and not getattr(part, "start_position", 0)


def always_rewinds(part: Any) -> bool:
    """Whether it can go back wherever it is."""
    return type(part).__name__ in {"KVCache", "QuantizedKVCache", "ConcatenateKVCache"}


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    shortest = min(len(first), len(second))
    if first[:shortest] == second[:shortest]:
        return shortest
    return next(place for place in range(shortest) if first[place] != second[place])


def _compact(part: Any) -> None:
    """Gives back what a cache has set aside beyond its tokens."""
    name = type(part).__name__
    if name == "KVCache" and part.keys is not None:
        part.keys, part.values = (_cut(each, part.offset) for each in (part.keys, part.values))
    elif name == "QuantizedKVCache" and part.keys is not None:
        part.keys, part.values = (
            tuple(_cut(array, part.offset) for array in each) for each in (part.keys, part.values)
        )
    else:
        return
    mx.eval(part.keys, part.values)


def _cut(array: mx.array, tokens_count: int) -> mx.array:
    return mx.contiguous(array[..., :tokens_count, :])
