"""A KV prefix: the state that the engine computed for the beginning of a conversation, and its name.

``policy.prefixes`` makes the names, ``services.prefixes`` decides and acts, ``storage.prefixes`` keeps
the manifest. Invariant: two prompts with an equal boundary name begin with the same tokens, for the
same model, KV types, template options and engine build.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrefixChain:
    """The names of one prompt's beginnings, shortest first, each a hash over all before it.

    ``boundaries[0]`` covers the tools and the first message (or the first chunk of a raw prompt), the
    last one the whole prompt (or its last whole chunk). ``weights`` are UTF-8 bytes covered up to each.
    ``conversation`` is equal for prompts that go on from each other: the name of their shared beginning.
    ``discard``: nothing of this prompt may be written to disk.
    """

    conversation: str
    boundaries: tuple[str, ...]
    weights: tuple[int, ...]
    discard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPrefix:
    """One file with KV state, as the manifest knows it. Times are seconds since the epoch.

    ``boundaries`` as in ``PrefixChain``; ``boundary_tokens`` are the tokens up to each of them, estimated.
    ``tokens_count`` counts the reply after the last boundary, too. ``prefill_seconds`` is what computing
    all of it takes: its worth.
    ``conversation_id`` is "" where no stored conversation owns it.
    """

    id: str
    model_id: str
    file_name: str
    boundaries: tuple[str, ...]
    boundary_tokens: tuple[int, ...]
    tokens_count: int
    bytes_count: int
    sha256: str
    prefill_seconds: float
    created_at: float
    last_used_at: float
    conversation_id: str = ""


@dataclass(frozen=True, slots=True)
class WrittenPrefix:
    """What an engine wrote: tokens in it (0: there was nothing to save) and the size of the file."""

    tokens_count: int
    bytes_count: int
