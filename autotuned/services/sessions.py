"""What sessions came to, and what the ones to come will need.

``services.inference`` asks it before a request and ``services.generation`` tells it after each turn.
Owns the sizes of the latest sessions of each model in memory; the store gets them in the background.
Invariant: bounded memory, whatever clients send; a session that is to leave no trace is never stored.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from typing import TypeVar

from autotuned.core.chat import GenerationRequest, ProfileName
from autotuned.core.errors import AutotuneError
from autotuned.core.learning import MOST_SESSIONS, SessionSize
from autotuned.core.ports import Clock, LearningStore
from autotuned.log import fields
from autotuned.policy.profiles import PROFILES, reply_room
from autotuned.policy.sessions import (
    AGENT,
    expected_agent_tokens,
    kind,
    session_name,
    usual_tokens,
)
from autotuned.services.learning import WRITE_INTERVAL_SECONDS, Learning
from autotuned.services.write_behind import WriteBehind

REMEMBERED_SECONDS = 30 * 24 * 3600.0
MOST_MODELS = 64
MOST_EXPECTED = 1024

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Sessions:
    """Sessions by model digest, the latest ones of each."""

    def __init__(
        self,
        *,
        learning: Learning,
        store: LearningStore,
        clock: Clock,
        interval_seconds: float = WRITE_INTERVAL_SECONDS,
    ) -> None:
        self._learning = learning
        self._store = store
        self._clock = clock
        self._sizes: OrderedDict[str, OrderedDict[str, SessionSize]] = OrderedDict()
        self._expected: OrderedDict[str, int] = OrderedDict()
        self._writes = WriteBehind(
            what="the size of sessions", write=self._write, interval_seconds=interval_seconds
        )

    async def open(self) -> None:
        """Reads the sessions of the last 30 days; where that fails it starts with none."""
        try:
            for size in await self._store.sessions(self._clock.now() - REMEMBERED_SECONDS):
                self._keep(size)
        except AutotuneError as error:
            _log.error("sessions cannot be read", extra=fields(reason=error.reason))

    async def close(self) -> None:
        """Writes what is not written yet."""
        await self._writes.close()

    def expected_tokens(self, request: GenerationRequest, digest: str, prompt_tokens: int) -> int:
        """What the largest turn of this session will probably need; 0 for a chat, which grows as it goes.

        ``prompt_tokens`` is the estimate of this request's prompt.
        The answer for one session stays the same until a request needs more than it.
        """
        if kind(request.input) != AGENT:
            return 0
        name = session_name(request, digest)
        reply_tokens = reply_room(request.max_reply_tokens, PROFILES[request.profile or ProfileName.BALANCED])
        expected = self._expected.get(name, 0)
        if expected < prompt_tokens + reply_tokens:
            earlier = self._earlier_agents(request.client, digest, name)
            turns_count = self._turns_count(digest, name)
            expected = expected_agent_tokens(prompt_tokens + reply_tokens, turns_count, earlier)
        _put_last(self._expected, name, expected, MOST_EXPECTED)
        return expected

    def ended_turn(self, request: GenerationRequest, digest: str, tokens: int) -> None:
        """A turn came to so many tokens, prompt and reply together."""
        name = session_name(request, digest)
        before = self._sizes[digest].get(name) if digest in self._sizes else None
        was_agent = before is not None and before.kind == AGENT
        size = SessionSize(
            session=name,
            client=request.client,
            model_digest=digest,
            kind=AGENT if was_agent else kind(request.input),
            largest_tokens=max(tokens, before.largest_tokens if before else 0),
            turns_count=before.turns_count + 1 if before else 1,
            ended_at=self._clock.now(),
        )
        self._keep(size)
        self._learning.used(digest, usual_tokens(self._sizes[digest].values()))
        if not request.discard:
            self._writes.put(name, size)

    def _turns_count(self, digest: str, name: str) -> int:
        known = self._sizes[digest].get(name) if digest in self._sizes else None
        return known.turns_count if known else 0

    def _earlier_agents(self, client: str, digest: str, name: str) -> Iterator[SessionSize]:
        for size in self._sizes.get(digest, {}).values():
            if size.client == client and size.kind == AGENT and size.session != name:
                yield size

    def _keep(self, size: SessionSize) -> None:
        sizes = self._sizes.get(size.model_digest, OrderedDict())
        _put_last(self._sizes, size.model_digest, sizes, MOST_MODELS)
        _put_last(sizes, size.session, size, MOST_SESSIONS)

    async def _write(self, _name: str, size: SessionSize) -> None:
        await self._store.remember_session(size)


def _put_last(entries: OrderedDict[str, T], key: str, value: T, most: int) -> None:
    """The latest entry is the last one; the first ones leave."""
    entries[key] = value
    entries.move_to_end(key)
    while len(entries) > most:
        entries.popitem(last=False)
