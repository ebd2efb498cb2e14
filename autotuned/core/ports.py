"""What the services need of the outside world. The wings implement these; ``daemon`` joins them.

Invariant of ``Engine``: nothing is reported as done that was not, and no knob is set that the
engine ignores. Every coroutine here can be cancelled at any await without leaking a process,
a socket or a descriptor.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from autotuned.core.chat import ChatInput, GenerationRequest
from autotuned.core.download import Downloaded, DownloadProgress, Offer, Reference
from autotuned.core.engine import Capabilities, EngineResident, EngineStatus
from autotuned.core.generation import EngineEvent, PrefillProgress
from autotuned.core.hardware import Application, Hardware
from autotuned.core.learning import Learned, SessionSize
from autotuned.core.memory import Footprint, MemoryReading, ProcessMemory
from autotuned.core.model import LoadProgress, ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.prefix import SavedPrefix, WrittenPrefix
from autotuned.core.record import RequestRecord
from autotuned.core.registry import Registry
from autotuned.core.snapshot import MachineReading


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

    @property
    def footprint(self) -> Footprint:
        """The bytes that the engine reported while it loaded, and what its process took beside them."""

    def generate(self, request: GenerationRequest, conversation: str) -> AsyncGenerator[EngineEvent, None]:
        """Yields ``PrefillProgress`` events, deltas, then one ``EngineFinished``.

        ``conversation`` names what the KV state belongs to: requests with one name go on from each
        other, and ``save_prefix`` finds the state under it.

        The first ``PrefillProgress`` comes before prefill and carries exact counts. An engine that does not
        declare ``counts_before_prefill`` yields none; its counts come with the end. Sampling is used as
        given: profile defaults have been filled in where the engine honours them. Closing the generator
        cancels: no further prefill batch and no further decode step starts. Raises ``ContextTooLong`` with
        the engine's count when the prompt does not fit, ``EngineUnreachable`` when the process dies or
        falls silent, ``FieldInvalid`` for what the engine refuses (a bad schema), ``Unsupported``.
        """

    def prefill(self, request: GenerationRequest, conversation: str) -> AsyncGenerator[PrefillProgress, None]:
        """Computes the KV state of the prompt and generates nothing; else like ``generate``.

        Ends when the whole prompt is in the cache. Closing it keeps what was computed. Only where the
        engine declares ``prefills``. One that counts only at the end yields a single event, there.
        """

    def holds(self, conversation: str) -> bool:
        """Whether its state lies where requests run; one that does not may still be kept beside them."""

    async def save_prefix(self, conversation: str, file_name: str) -> WrittenPrefix:
        """Writes the KV state of a conversation that no request uses now into the prefix folder.

        One that is kept beside those where requests run is fetched back for it, and pushes one out.
        A conversation whose state is not in the engine any more writes 0 tokens. Raises ``StorageFull``,
        ``EngineUnreachable``; what was written by then is for the caller to remove.
        """

    async def restore_prefix(self, conversation: str, file_name: str) -> int:
        """Reads such a file back, so that the next request of this conversation starts from it.

        Returns its tokens; 0 where the engine refuses the file. Raises ``EngineUnreachable``.
        """

    async def count_tokens(self, chat: ChatInput | str) -> int:
        """Exact tokens of a conversation through the template, or of a text as it is."""

    async def unload(self) -> None:
        """Ends the incarnation and returns when its memory is free. Safe to call twice."""

    async def release(self) -> None:
        """The daemon ends: the incarnation ends, too, unless somebody else had loaded it."""

    async def wait_gone(self) -> str:
        """Returns, once the incarnation is gone for whatever cause, that cause in plain words."""


class Engine(Protocol):
    """A program that runs models: in workers of the daemon, or a server that others may use as well."""

    @property
    def name(self) -> str:
        """Lower case, for example "llamacpp"; unique in a daemon."""

    @property
    def version(self) -> str:
        """Version or build of what runs the models; "" while it is not known."""

    def capabilities(self) -> Capabilities:
        """What it can do, as far as its version is known."""

    def status(self) -> EngineStatus:
        """How it stood when it was looked at last."""

    async def refresh(self) -> None:
        """Looks whether it is there, and what it has. Raises nothing for what it finds.

        Called at the start, every few seconds, and before lists are shown; an engine without a server
        has little to do. Takes a few seconds at most where a server hangs.
        """

    async def models(self) -> Sequence[ModelEntry]:
        """The models that it could run now, unsound files included with their ``problem``.

        Empty where its server is not there.
        """

    async def residents(self) -> Sequence[EngineResident]:
        """What its server has in memory now, whoever loaded it; empty for an engine with own workers."""

    async def unload_resident(self, model_id: str) -> bool:
        """Unloads what its server has in memory for somebody else; False where there is nothing.

        Raises ``EngineUnreachable``.
        """

    async def load(
        self, entry: ModelEntry, shape: LoadShape, on_progress: Callable[[LoadProgress], None]
    ) -> LoadedModel:
        """Loads a model in exactly this shape, so far as its ``knobs`` allow. Cancelling it ends the load.

        Raises ``ModelInvalid``, ``ModelLoadFailed`` or ``EngineUnreachable``.
        """

    async def pull(self, name: str, on_progress: Callable[[DownloadProgress], None]) -> Downloaded:
        """Has its server download a model under this name of its own; what is there already is not fetched.

        Only where the engine declares ``pulls``. Cancelling it stops the download; what came stays. Raises
        ``ModelNotFound``, ``SourceUnreachable``, ``SourceDenied``, ``DownloadCorrupt``, ``StorageFull`` or
        ``EngineUnreachable``.
        """

    async def delete(self, entry: ModelEntry) -> int:
        """Deletes a model of its list, which is not in memory, from the disk; returns the bytes freed.

        Files that another name still needs stay. Raises ``Unsupported`` with what to do instead where it is
        not the engine's to delete, ``EngineUnreachable``, ``StorageFull`` where the disk refuses.
        """

    async def close(self) -> None:
        """Ends every process that the engine started."""


class Download(Protocol):
    """One download that was resolved and waits to be fetched. ``close`` it, whatever happens."""

    @property
    def offer(self) -> Offer:
        """What would be fetched."""

    async def fetch(self, on_progress: Callable[[DownloadProgress], None]) -> Downloaded:
        """Fetches what is missing, verifies it, and gives it its name. Cancelling keeps what came.

        Connections that break are tried again for a while. Raises ``SourceUnreachable``, ``SourceDenied``,
        ``DownloadCorrupt`` or ``StorageFull``.
        """

    async def close(self) -> None:
        """Ends it, and returns when nothing of it runs any more; what came stays. Safe to call twice."""


class Downloader(Protocol):
    """Fetches models into the folders where the daemon's own engines find them."""

    async def find(self, reference: Reference) -> Download:
        """Asks the source what there is. Cancelling it ends all of it.

        Raises ``ModelNotFound``, ``FieldInvalid``, ``Unsupported`` for what nothing here could run,
        ``SourceUnreachable`` or ``SourceDenied``.
        """


class HardwareProbe(Protocol):
    """Tells what the machine is made of."""

    async def read(self) -> Hardware:
        """The machine now. What never changes is looked at once, memory bandwidth measured once for good."""

    async def applications(self) -> Sequence[Application]:
        """The programs of this user that take memory, the daemon and its workers left out, largest first."""


class RegistryFile(Protocol):
    """Reads the registry of downloadable models."""

    @property
    def own_file(self) -> Path:
        """Where the user's own models are looked for, there or not."""

    async def read(self) -> Registry:
        """The packaged models, and the user's own, of which one with the same id takes the other's place.

        Raises nothing for what the user's file says: that is told in ``problems``.
        """


class RequestLog(Protocol):
    """Remembers finished requests."""

    async def append(self, record: RequestRecord) -> None:
        """Commits one record. Raises ``StorageFull``."""


class LearningStore(Protocol):
    """Keeps what was learned of models and sessions across restarts."""

    async def learned(self) -> Mapping[str, Learned]:
        """Everything that is known, by model digest."""

    async def remember(self, digest: str, learned: Learned) -> None:
        """Replaces what is known of one model. Raises ``StorageFull``."""

    async def sessions(self, newer_than: float) -> Sequence[SessionSize]:
        """Sessions that ended after this epoch second, oldest first."""

    async def remember_session(self, size: SessionSize) -> None:
        """Adds a session, or replaces it by its name. Raises ``StorageFull``."""


class PrefixStore(Protocol):
    """The manifest of saved KV prefixes and the files that it names.

    ``folder`` is where engines write and read them; a file that the manifest does not name is nobody's.
    """

    @property
    def folder(self) -> Path:
        """A folder that its owner alone can enter."""

    async def prefixes(self) -> Sequence[SavedPrefix]:
        """All of them whose file is there; removes strange files and entries without a file."""

    async def add(self, prefix: SavedPrefix) -> None:
        """Commits an entry whose file is complete. Raises ``StorageFull``."""

    async def touch(self, prefix_id: str, used_at: float) -> None:
        """Remembers a use."""

    async def remove(self, prefix_ids: Sequence[str]) -> None:
        """Deletes files and entries. Those that are not there are no error."""

    async def digest(self, file_name: str) -> str:
        """SHA-256 of a file in hexadecimal; "" where it is not there."""

    async def discard_file(self, file_name: str) -> None:
        """Deletes a file that has no entry."""

    async def free_bytes(self) -> int:
        """Room on the disk."""


class Machine(Protocol):
    """Reads the machine."""

    async def read(self) -> MachineReading:
        """A reading of now."""

    async def read_memory(self) -> MemoryReading:
        """A reading of memory alone, in well under a millisecond."""

    def process_memory(self, process_id: int) -> ProcessMemory:
        """Memory of a process; zeros where it is gone or unknown."""


class Clock(Protocol):
    """Time, so that tests can make their own."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
