"""What the services need of the outside world. The wings implement these; ``daemon`` joins them.

Invariant of ``Engine``: nothing is reported as done that was not, and no knob is set that the
engine ignores. Every coroutine here can be cancelled at any await without leaking a process,
a socket or a descriptor.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from autotuned.core.chat import ChatInput, GenerationRequest
from autotuned.core.generation import EngineEvent
from autotuned.core.model import LoadProgress, ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.record import RequestRecord
from autotuned.core.snapshot import MachineReading


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do. A feature that is False is refused with ``Unsupported``, never ignored."""

    tools: bool
    json_schema: bool
    reasoning: bool
    logprobs: bool
    images: bool
    raw_prompt: bool
    embeddings: bool
    exact_token_counts: bool
    load_shape: bool


class LoadedModel(Protocol):
    """One incarnation of a model in memory. A reload is another object; none is used after it is gone."""

    @property
    def incarnation_id(self) -> str:
        """Unique for the life of the machine."""

    @property
    def shape(self) -> LoadShape:
        """The shape that was really applied."""

    @property
    def process_id(self) -> int:
        """The process that holds the memory; 0 where the engine has none of its own."""

    @property
    def is_gone(self) -> bool:
        """True once the incarnation can never answer again; ``wait_gone`` then returns at once."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[EngineEvent, None]:
        """Yields one or more ``PrefillProgress``, deltas, then one ``EngineFinished``.

        The first ``PrefillProgress`` comes before prefill and carries exact counts. Sampling is
        used as given: profile defaults have been filled in. Closing the generator cancels: no
        further prefill batch and no further decode step starts. Raises ``ContextTooLong`` with the
        engine's count when the prompt does not fit, ``EngineUnreachable`` when the process dies or
        falls silent, ``FieldInvalid`` for what the engine refuses (a bad schema), ``Unsupported``.
        """

    async def count_tokens(self, chat: ChatInput | str) -> int:
        """Exact tokens of a conversation through the template, or of a text as it is."""

    async def unload(self) -> None:
        """Ends the incarnation and returns when its memory is free. Safe to call twice."""

    async def wait_gone(self) -> str:
        """Returns, once the incarnation is gone for whatever cause, that cause in plain words."""


class Engine(Protocol):
    """A program that runs models."""

    @property
    def name(self) -> str:
        """Lower case, for example "llamacpp"."""

    @property
    def version(self) -> str:
        """Version or build of what runs the models."""

    def capabilities(self) -> Capabilities:
        """What it can do."""

    async def models(self) -> Sequence[ModelEntry]:
        """The models that it could run now, unsound files included with their ``problem``."""

    async def load(
        self, entry: ModelEntry, shape: LoadShape, on_progress: Callable[[LoadProgress], None]
    ) -> LoadedModel:
        """Loads a model in exactly this shape. Cancelling it ends the process that was started.

        Raises ``ModelInvalid`` or ``ModelLoadFailed``.
        """

    async def close(self) -> None:
        """Ends every process that the engine started."""


class RequestLog(Protocol):
    """Remembers finished requests."""

    async def append(self, record: RequestRecord) -> None:
        """Commits one record. Raises ``StorageFull``."""


class Machine(Protocol):
    """Reads the machine."""

    async def read(self) -> MachineReading:
        """A reading of now."""

    def resident_memory_bytes(self, process_id: int) -> int:
        """Resident memory of a process; 0 where it is gone or unknown."""


class Clock(Protocol):
    """Time, so that tests can make their own."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
