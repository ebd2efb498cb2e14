"""What KV state the daemon believes to be in an engine: the conversations of one incarnation.

``services.prefixes`` owns one ``Incarnation`` for each loaded model that served a request. The engine
alone knows; this only has to be right often enough to decide well, and is corrected by what the engine
counts and writes. Invariant: what a conversation's state is named is at most what it holds: while a
request is under way, only the beginning that the state before and the state after it share.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import islice

from autotuned.core.generation import Usage
from autotuned.core.model import ModelFacts
from autotuned.core.ports import LoadedModel
from autotuned.core.prefix import PrefixChain, SavedPrefix
from autotuned.policy.prefix_worth import (
    WRITE_BYTES_PER_SECOND,
    is_worth_a_checkpoint,
    is_worth_saving,
    recompute_seconds,
    state_bytes,
)
from autotuned.policy.prefixes import boundary_tokens, shared_count

# Beside those in slots, so many conversations are remembered that may be in the engine's own cache.
REMEMBERED_COUNT = 64
# Names of conversations that must never be written, remembered beyond that.
REMEMBERED_DISCARDED_COUNT = 1024


@dataclass(frozen=True, slots=True)
class Promise:
    """A prefix that was read back for a request, and the tokens that it should spare it."""

    saved: SavedPrefix
    tokens_count: int


@dataclass(slots=True, eq=False)
class Conversation:
    """The state of one conversation in an engine; ``saved_tokens`` of it are in a file, too.

    ``under_way`` are the requests that use it, by identity. ``prefill_seconds`` is what computing all of
    it from nothing would take. ``discard``: it must never be written. Without ``rewinds`` it is of use only
    to what goes on from its end.
    """

    name: str
    rewinds: bool = True
    boundaries: tuple[str, ...] = ()
    boundary_tokens: tuple[int, ...] = ()
    tokens_count: int = 0
    prefill_seconds: float = 0.0
    saved_tokens: int = 0
    rested_at: float = 0.0
    discard: bool = False
    promise: Promise | None = None
    under_way: set[int] = field(default_factory=set)

    @property
    def seconds_per_token(self) -> float:
        """What a token of it costs; 0 where nothing is known."""
        return self.prefill_seconds / self.tokens_count if self.tokens_count else 0.0

    def tokens_shared_with(self, chain: PrefixChain) -> int:
        """Tokens that a prompt can take over from this state."""
        count = self._shared_count(chain)
        if not count:
            return 0
        return self.tokens_count if count == len(self.boundaries) else self.boundary_tokens[count - 1]

    def narrow(self, chain: PrefixChain) -> None:
        """A request goes on from here: until it is done, only what both have in common is certain."""
        count = self._shared_count(chain)
        if count == len(self.boundaries):
            return
        seconds_per_token = self.seconds_per_token
        self.boundaries = self.boundaries[:count]
        self.boundary_tokens = self.boundary_tokens[:count]
        self.tokens_count = self.boundary_tokens[-1] if count else 0
        self.saved_tokens = min(self.saved_tokens, self.tokens_count)
        self.prefill_seconds = seconds_per_token * self.tokens_count

    def _shared_count(self, chain: PrefixChain) -> int:
        """How many boundaries of this state a prompt can go on from."""
        count = shared_count(self.boundaries, chain.boundaries)
        return count if self.rewinds or count == len(self.boundaries) else 0

    def restored(self, saved: SavedPrefix) -> None:
        """The engine has read this prefix back."""
        self.boundaries = saved.boundaries
        self.boundary_tokens = saved.boundary_tokens
        self.tokens_count = self.saved_tokens = saved.tokens_count
        self.prefill_seconds = saved.prefill_seconds

    def written(self, tokens_count: int, *, of_tokens: int) -> None:
        """The engine wrote so many tokens when this was taken to have ``of_tokens``: its count is right."""
        if self.tokens_count == of_tokens:  # no request has narrowed it since
            self.tokens_count = tokens_count
        self.saved_tokens = min(tokens_count, self.tokens_count)

    def leave_unsaved(self) -> None:
        """It is not written before it has changed."""
        self.saved_tokens = self.tokens_count

    def settle(self, chain: PrefixChain, usage: Usage, prefill_seconds: float, now: float) -> None:
        """A request has ended well: the state is its prompt and its reply."""
        tokens_count = usage.prompt_tokens + usage.reply_tokens
        self.prefill_seconds = recompute_seconds(
            tokens_count=tokens_count,
            evaluated_tokens=usage.prompt_tokens - usage.cached_tokens,
            prefill_seconds=prefill_seconds,
            known_seconds_per_token=self.seconds_per_token,
        )
        self.boundaries = chain.boundaries
        self.boundary_tokens = boundary_tokens(chain.weights, usage.prompt_tokens)
        self.tokens_count = tokens_count
        self.rested_at = now


class Incarnation:
    """One loaded model. ``lock`` is held while its engine writes or reads a file."""

    def __init__(self, loaded: LoadedModel, model_id: str, facts: ModelFacts, namespace: str) -> None:
        self.loaded = loaded
        self.model_id = model_id
        self.facts = facts
        self.namespace = namespace
        self.lock = asyncio.Lock()
        self.given_up_files: list[str] = []
        self._conversations: dict[str, Conversation] = {}  # the last one was used last
        self._discarded: dict[str, None] = {}  # names, the latest last

    @property
    def is_serving(self) -> bool:
        """Whether any request is under way."""
        return any(each.under_way for each in self._conversations.values())

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """All that may be in the engine, the one that was used last first."""
        return tuple(reversed(self._conversations.values()))

    def state_bytes(self, conversation: Conversation) -> int:
        """How large its file would be."""
        return state_bytes(self.facts, self.loaded.shape, conversation.tokens_count)

    def write_seconds(self, conversation: Conversation) -> float:
        """What writing it takes on a common disk."""
        return self.state_bytes(conversation) / WRITE_BYTES_PER_SECOND

    def live_tokens(self, chain: PrefixChain) -> int:
        """Tokens of this prompt that the slot which it gets holds, or the engine's own cache."""
        own = self._conversations.get(chain.conversation)
        if own is not None and self._is_held(own):
            return own.tokens_shared_with(chain)
        replaced = self.replaced_by(chain)
        return replaced.tokens_shared_with(chain) if replaced is not None else 0

    def replaced_by(self, chain: PrefixChain) -> Conversation | None:
        """The conversation whose slot this prompt takes over; None where it has one or one is empty."""
        in_slots = self._in_slots()
        if any(each.name == chain.conversation for each in in_slots):
            return None
        resting = [each for each in in_slots if not each.under_way]
        return resting[-1] if resting and len(in_slots) == self.loaded.shape.slots_count else None

    def survives_in_memory(self, conversation: Conversation) -> bool:
        """Whether the engine keeps this state where another request takes over its slot."""
        return self.state_bytes(conversation) <= self.loaded.shape.host_prompt_cache_bytes

    def begin(self, chain: PrefixChain) -> Conversation:
        """A request goes on with its conversation, which is now the one that was used last."""
        conversation = self._conversations.pop(chain.conversation, None) or Conversation(
            chain.conversation, rewinds=self.facts.rewinds
        )
        self._conversations[chain.conversation] = conversation
        conversation.narrow(chain)
        conversation.discard = conversation.discard or chain.discard or conversation.name in self._discarded
        if conversation.discard:
            self._remember_discarded(conversation.name)
        conversation.promise = None
        conversation.under_way.add(id(chain))
        self._forget_oldest()
        return conversation

    def end(self, chain: PrefixChain) -> Conversation | None:
        """The request is over, however it ended; returns its conversation."""
        conversation = self._conversations.get(chain.conversation)
        if conversation is not None:
            conversation.under_way.discard(id(chain))
        return conversation

    def end_all(self) -> None:
        """No request is left: whoever ends the incarnation has made sure of that."""
        for conversation in self._conversations.values():
            conversation.under_way.clear()

    def forget(self, conversation: Conversation) -> None:
        """Its state is not in the engine any more."""
        if self._conversations.get(conversation.name) is conversation:
            del self._conversations[conversation.name]

    def worth_saving(self) -> list[Conversation]:
        """What should be on disk before the engine ends, the most valuable first."""
        worthy = [each for each in self.conversations if self.is_worth_saving(each)]
        return sorted(worthy, key=lambda each: each.prefill_seconds, reverse=True)

    def to_save_at_the_end(self) -> list[Conversation]:
        """The same, those in slots before those beside them: fetching one back pushes another one out."""
        return sorted(self.worth_saving(), key=lambda each: not self.loaded.holds(each.name))

    def worth_a_checkpoint(self, rested_before: float) -> list[Conversation]:
        """What should be on disk in case that the engine dies, of all that rest since then or longer."""
        return [
            each
            for each in self.worth_saving()
            if each.rested_at <= rested_before
            and is_worth_a_checkpoint(
                tokens_count=each.tokens_count,
                saved_tokens=each.saved_tokens,
                prefill_seconds=each.prefill_seconds,
                bytes_count=self.state_bytes(each),
            )
        ]

    def is_worth_saving(self, conversation: Conversation) -> bool:
        """Whether this state may be written and is worth it."""
        if conversation.discard or conversation.under_way or not conversation.boundaries:
            return False
        return is_worth_saving(
            tokens_count=conversation.tokens_count,
            saved_tokens=conversation.saved_tokens,
            prefill_seconds=conversation.prefill_seconds,
            bytes_count=self.state_bytes(conversation),
        )

    def _in_slots(self) -> tuple[Conversation, ...]:
        return tuple(islice(reversed(self._conversations.values()), self.loaded.shape.slots_count))

    def _is_held(self, conversation: Conversation) -> bool:
        """In a slot, or in the engine's own cache as far as the latest ones fit into it."""
        in_slots = self._in_slots()
        if conversation in in_slots:
            return True
        left_bytes = self.loaded.shape.host_prompt_cache_bytes
        for each in self.conversations[len(in_slots) :]:
            left_bytes -= self.state_bytes(each)
            if each is conversation:
                return left_bytes >= 0
        return False

    def _forget_oldest(self) -> None:
        most = self.loaded.shape.slots_count + REMEMBERED_COUNT
        for conversation in self.conversations[most:]:
            if not conversation.under_way:
                self.forget(conversation)

    def _remember_discarded(self, name: str) -> None:
        self._discarded.pop(name, None)
        self._discarded[name] = None
        if len(self._discarded) > REMEMBERED_DISCARDED_COUNT:
            del self._discarded[next(iter(self._discarded))]
