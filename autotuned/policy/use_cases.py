"""What a model is to be good at, and what that asks of it.

``recommend`` scores by it. Invariant: every use has a context that its work really fills.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class UseCase(Enum):
    """What a model is for."""

    CHAT = "chat"
    CODING = "coding"
    REASONING = "reasoning"
    AGENTS = "agents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a use asks of a model.

    ``context_tokens`` have to fit; ``rank`` is the kind of task in ``RegistryModel.ranks`` that it is like.
    At ``half_speed`` tokens a second a model is worth half of what its quality is: who waits for a reply
    reads along, who waits for an agent waits for the end. A model that thinks writes more tokens for an
    answer: ``thinking_ratio`` times as many.
    """

    context_tokens: int
    rank: str
    half_speed: float
    thinking_ratio: float
    has_to_think: bool = False
    has_to_call_tools: bool = False


DEMANDS: Mapping[UseCase, Demand] = MappingProxyType(
    {
        UseCase.CHAT: Demand(context_tokens=8_192, rank="chat", half_speed=4.0, thinking_ratio=1.5),
        UseCase.CODING: Demand(context_tokens=16_384, rank="coding", half_speed=5.0, thinking_ratio=1.5),
        UseCase.REASONING: Demand(
            context_tokens=16_384, rank="math", half_speed=5.0, thinking_ratio=1.0, has_to_think=True
        ),
        UseCase.AGENTS: Demand(
            context_tokens=32_768,
            rank="agents",
            half_speed=7.0,
            thinking_ratio=1.25,
            has_to_call_tools=True,
        ),
    }
)
