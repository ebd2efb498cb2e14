"""What an engine can do, how it stands, and what it holds: values that engines tell of themselves.

Engines make them; ``policy`` decides with them, ``rpc`` shows them. Invariant: nothing is declared that
the engine does not do; what depends on its version is declared once the version is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from autotuned.core.plan import KvCacheType


class KnobScope(Enum):
    """Where an engine honours an option: with each request, at a load, for its whole server, or nowhere."""

    REQUEST = "request"
    LOAD = "load"
    SERVER = "server"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """The scope of each part of a load's shape. What has ``NONE`` or ``SERVER`` no load may set."""

    context_tokens: KnobScope = KnobScope.NONE
    slots_count: KnobScope = KnobScope.NONE
    cache_type: KnobScope = KnobScope.NONE
    flash_attention: KnobScope = KnobScope.NONE
    batch_tokens: KnobScope = KnobScope.NONE
    gpu_layers_count: KnobScope = KnobScope.NONE
    host_prompt_cache: KnobScope = KnobScope.NONE
    memory_mapped: KnobScope = KnobScope.NONE
    keep_alive: KnobScope = KnobScope.NONE


ALL_SAMPLING = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
    }
)
"""The names of the fields of ``Sampling``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do. A feature that is False is refused with ``Unsupported``, never ignored.

    ``sampling`` are the fields of ``Sampling`` that it honours. ``tool_choice``: it can be told that it
    must, or must not, call a tool. ``counts_before_prefill``: its first event carries the exact token
    counts; else they come with the end. ``counts_cached``: it tells how much of a prompt was cached.
    ``prefills``: it can compute a prompt without answering. ``continues_replies``: it goes on from
    ``reply_so_far``. ``is_local``: its models take memory of this machine. ``slots_count``: requests of
    one model that it runs at the same time. ``batch_tokens`` is configured for it; 0 chooses.
    ``server_cache_type`` is the type of the KV cache where no load may choose it. ``has_gpu``: its
    build computes on a GPU, and layers can be offered to it. ``pulls``: its server downloads models for
    itself.
    """

    tools: bool
    json_schema: bool
    reasoning: bool
    logprobs: bool
    images: bool
    raw_prompt: bool
    embeddings: bool
    exact_token_counts: bool
    kv_prefixes: bool
    tool_choice: bool = True
    sampling: frozenset[str] = ALL_SAMPLING
    counts_before_prefill: bool = True
    counts_cached: bool = True
    prefills: bool = True
    continues_replies: bool = True
    is_local: bool = True
    slots_count: int = 1
    batch_tokens: int = 0
    has_gpu: bool = False
    pulls: bool = False
    server_cache_type: KvCacheType = KvCacheType.F16
    knobs: Knobs = Knobs()


class EngineState(Enum):
    """How an engine stands."""

    READY = "ready"
    STARTING = "starting"
    UNREACHABLE = "unreachable"
    NOT_INSTALLED = "not installed"
    OFF = "off"


class Severity(IntEnum):
    """How bad a finding is; higher is worse."""

    INFO = 0
    WARNING = 1
    PROBLEM = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a person should know: a stable kebab-case code, a sentence, and what to do about it.

    ``subject`` is an engine or a part of the machine; ``advice`` "" where there is nothing to do.
    """

    code: str
    severity: Severity
    subject: str
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """How an engine stands now. ``address`` is a URL or the program that it runs; "" where it has none.

    ``detail`` says in a clause why it is not ready, "" where it is. ``accelerator`` names what computes,
    for example "CPU", "CUDA" or "Metal"; "" where nobody tells. Knobs of ``SERVER`` scope are listed in
    ``server_settings`` as far as they are known.
    """

    name: str
    state: EngineState
    version: str = ""
    address: str = ""
    detail: str = ""
    accelerator: str = ""
    server_settings: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResident:
    """A model that an engine has in memory, whoever loaded it. Times are seconds since the epoch.

    ``context_tokens`` and ``memory_bytes`` are 0 where the engine does not tell; ``expires_at`` 0: it stays.
    """

    model_id: str
    context_tokens: int = 0
    memory_bytes: int = 0
    accelerator_bytes: int = 0
    expires_at: float = 0.0
