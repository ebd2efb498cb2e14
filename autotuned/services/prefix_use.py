"""The KV prefix of one request on one lease: read back before, valued after.

``services.generation`` and ``services.prewarm`` run the engine inside of it. Invariant: whatever becomes
of the request, its conversation is free again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from autotuned.core.chat import GenerationRequest
from autotuned.core.generation import Usage
from autotuned.core.model import ModelEntry
from autotuned.core.ports import Engine, LoadedModel
from autotuned.core.prefix import PrefixChain
from autotuned.services.prefixes import Prefixes


class PrefixUse:
    """A context manager. An engine without KV prefixes is given no conversation, and nothing is saved.

    ``known_by`` turns the name of a conversation into the one that the engine knows it by.
    """

    def __init__(
        self,
        *,
        prefixes: Prefixes,
        engine: Engine,
        entry: ModelEntry,
        loaded: LoadedModel,
        request: GenerationRequest,
        known_by: Callable[[str], str],
    ) -> None:
        self._prefixes = prefixes
        self._engine = engine
        self._entry = entry
        self._loaded = loaded
        self._request = request
        self._known_by = known_by
        self._chain: PrefixChain | None = None
        if engine.capabilities().kv_prefixes:
            self._chain = self._chain_of(request)

    @property
    def conversation(self) -> str:
        """What the engine knows the state by."""
        return self._chain.conversation if self._chain else ""

    async def __aenter__(self) -> Self:
        """Reads a saved state back where that is worth it. Raises EngineUnreachable."""
        if self._chain is not None:
            await self._prefixes.before_request(self._loaded, self._entry, self._chain)
        return self

    def ended(self, usage: Usage, prefill_seconds: float) -> None:
        """The engine ended well and holds prompt and reply."""
        if self._chain is not None:
            self._tell(self._chain, usage, prefill_seconds)

    def ended_within(self, reply: str, usage: Usage, prefill_seconds: float) -> None:
        """The same of one that goes on: all of its ``reply`` is part of the next prompt and has a name."""
        self.ended(usage, prefill_seconds)
        if self._chain is not None:
            chain = self._chain_of(replace(self._request, reply_so_far=reply))
            tokens = usage.prompt_tokens + usage.reply_tokens
            self._tell(chain, Usage(tokens, tokens, 0), 0.0)

    def _tell(self, chain: PrefixChain, usage: Usage, prefill_seconds: float) -> None:
        self._prefixes.after_request(
            self._loaded, self._entry, chain, usage, prefill_seconds, discard=self._request.discard
        )

    def _chain_of(self, request: GenerationRequest) -> PrefixChain:
        chain = self._prefixes.chain(request, self._entry, self._loaded, self._engine.version)
        known_by = self._known_by(chain.conversation)
        return chain if known_by == chain.conversation else replace(chain, conversation=known_by)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._chain is not None:
            self._prefixes.broke_off(self._loaded, self._chain)
