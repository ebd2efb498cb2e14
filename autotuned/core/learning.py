"""What earlier loads and requests of a model taught, as values. ``services.learning`` owns them."""

from __future__ import annotations

from dataclasses import dataclass

from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape

# Sessions of one model content that are remembered, the latest ones.
MOST_SESSIONS = 200


@dataclass(frozen=True, slots=True)
class MeasuredLoad:
    """The footprint that the engine reported for a shape."""

    shape: LoadShape
    footprint: Footprint


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What is known of one model content (by digest). The defaults are those of one never seen.

    ``loads`` has the latest measured load for each micro-batch, flash attention and mapping.
    ``prefill_tokens_per_second`` and ``tokens_per_byte`` are 0 where unknown.
    ``usual_context_tokens`` is what requests of this model came to need, 0 where unknown.
    """

    loads: tuple[MeasuredLoad, ...] = ()
    prefill_tokens_per_second: float = 0.0
    tokens_per_byte: float = 0.0
    usual_context_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSize:
    """What one session came to: tokens of its largest turn, prompt and reply together.

    ``kind`` is "agent" for sessions with tools or many turns, else "chat".
    """

    session: str
    client: str
    model_digest: str
    kind: str
    largest_tokens: int
    turns_count: int
    ended_at: float
