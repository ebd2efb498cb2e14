"""What earlier loads and requests taught of each model: sizes, speeds, tokens per byte.

``services.models`` plans with it, ``services.generation`` tells it what it saw. Owns the values in
memory, which count; the store gets them in the background. Invariant: nobody ever waits for the disk,
and what cannot be stored is known for as long as the daemon lives.
"""

from __future__ import annotations

import logging

from autotuned.core.errors import AutotuneError
from autotuned.core.learning import Learned, MeasuredLoad
from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape
from autotuned.core.ports import LearningStore
from autotuned.log import fields
from autotuned.policy import learning as policy
from autotuned.policy import sizing
from autotuned.services.write_behind import WriteBehind

WRITE_INTERVAL_SECONDS = 3.0
_NOTHING = Learned()

_log = logging.getLogger(__name__)


class Learning:
    """Known by model digest: what was learned of a file holds for every copy of it."""

    def __init__(self, *, store: LearningStore, interval_seconds: float = WRITE_INTERVAL_SECONDS) -> None:
        self._store = store
        self._known: dict[str, Learned] = {}
        self._writes = WriteBehind(
            what="what was learned", write=store.remember, interval_seconds=interval_seconds
        )

    async def open(self) -> None:
        """Reads what earlier daemons learned; where that fails it starts with nothing."""
        try:
            self._known = dict(await self._store.learned())
        except AutotuneError as error:
            _log.error("what was learned cannot be read", extra=fields(reason=error.reason))

    async def close(self) -> None:
        """Writes what is not written yet."""
        await self._writes.close()

    def of(self, digest: str) -> Learned:
        """What is known of a model."""
        return self._known.get(digest, _NOTHING)

    def estimate(self, digest: str, prompt_bytes: int, messages_count: int) -> int:
        """Tokens that a prompt probably has for a model."""
        return sizing.estimate_prompt_tokens(
            prompt_bytes, messages_count, policy.tokens_per_byte(self.of(digest))
        )

    def loaded(self, digest: str, shape: LoadShape, footprint: Footprint) -> None:
        """An engine measured a load."""
        self._learn(digest, policy.with_load(self.of(digest), MeasuredLoad(shape, footprint)))

    def counted(self, digest: str, prompt_bytes: int, prompt_tokens: int, messages_count: int) -> None:
        """An engine counted a prompt."""
        self._learn(digest, policy.with_prompt(self.of(digest), prompt_bytes, prompt_tokens, messages_count))

    def served(self, digest: str, evaluated_tokens: int, prefill_seconds: float) -> None:
        """An engine evaluated so many tokens of a prompt, cached ones left out."""
        self._learn(digest, policy.with_prefill(self.of(digest), evaluated_tokens, prefill_seconds))

    def used(self, digest: str, usual_context_tokens: int) -> None:
        """Sessions of this model usually come to so many tokens."""
        self._learn(digest, policy.with_usual_context(self.of(digest), usual_context_tokens))

    def _learn(self, digest: str, learned: Learned) -> None:
        if learned != self.of(digest):
            self._known[digest] = learned
            self._writes.put(digest, learned)
