"""What every request needs of the house: the model's actor, its engine, and what was learned.

``services.inference`` makes one for each request and hands it to ``services.generation`` or
``services.prewarm``. Invariant: the request in it is complete: nothing is left to a default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from autotuned.core.chat import ChatInput, GenerationRequest, RawPrompt
from autotuned.core.generation import Usage
from autotuned.core.model import ModelEntry
from autotuned.core.plan import Need, Reason
from autotuned.core.ports import Clock, Engine, LoadedModel
from autotuned.policy.prompt import messages_count
from autotuned.policy.sizing import reserved_reply
from autotuned.services.beginnings import Beginnings
from autotuned.services.learning import Learning
from autotuned.services.model_actor import ModelActor
from autotuned.services.prefix_use import PrefixUse
from autotuned.services.prefixes import Prefixes
from autotuned.services.sessions import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """One request with everything around it. ``learned_as`` is its model's name for learning.

    ``model_name`` is what the list calls its model; ``route_reasons`` say why this engine runs it.

    ``prompt_bytes`` are what ``policy.prompt`` counts: once, since a conversation has hundreds of parts.
    """

    request: GenerationRequest
    prompt_bytes: int
    need: Need
    learned_as: str
    actor: ModelActor
    model_name: str
    route_reasons: tuple[Reason, ...]
    engine: Engine
    learning: Learning
    sessions: Sessions
    prefixes: Prefixes
    beginnings: Beginnings
    clock: Clock

    @property
    def entry(self) -> ModelEntry:
        """The model."""
        return self.actor.entry

    def prefix(self, loaded: LoadedModel, request: GenerationRequest) -> PrefixUse:
        """The KV prefix of this request, or of the rest of it, on a lease."""
        return self._prefix(loaded, request, self.beginnings.of_request)

    def prewarmed_prefix(self, loaded: LoadedModel) -> PrefixUse:
        """The KV prefix that a prewarm leaves for a request to come."""
        return self._prefix(loaded, self.request, self.beginnings.of_prewarm)

    def counted(self, prompt_tokens: int) -> None:
        """The engine counted the prompt: its tokens per byte are learned."""
        messages = messages_count(self.request.input)
        self.learning.counted(self.learned_as, self.prompt_bytes, prompt_tokens, messages)

    def prefilled(self, evaluated_tokens: int, seconds: float) -> None:
        """The engine evaluated so many tokens of a prompt: its speed is learned."""
        self.learning.served(self.learned_as, evaluated_tokens, seconds)

    def ended_turn(self, usage: Usage) -> None:
        """The reply is complete, or was stopped: the size of its session is learned.

        What a short reply left of its room was needed all the same: the next one may fill it.
        """
        reply_tokens = max(usage.reply_tokens, reserved_reply(self.need))
        self.sessions.ended_turn(self.request, self.learned_as, usage.prompt_tokens + reply_tokens)

    def _prefix(
        self,
        loaded: LoadedModel,
        request: GenerationRequest,
        known_by: Callable[[str, ChatInput | RawPrompt, str], str],
    ) -> PrefixUse:
        return PrefixUse(
            prefixes=self.prefixes,
            engine=self.engine,
            entry=self.entry,
            loaded=loaded,
            request=request,
            known_by=partial(known_by, loaded.incarnation_id, request.input),
        )
