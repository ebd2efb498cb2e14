"""The settings of every part, as frozen values with their defaults.

``config`` reads them from file, environment and flags; ``daemon`` hands each part its slice.
A field here is an option there: its docstring line is the option's documentation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from autotuned.core.chat import ProfileName


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSettings:
    """Folders. ``data``: models and database; ``runtime``: sockets and lock; ``state``: logs."""

    data: Path
    runtime: Path
    state: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """How the daemon lives.

    ``drain_seconds``: how long running requests may take to finish when the daemon stops.
    ``log_level``: debug, info, warning or error. ``log_file``: empty logs to standard error.
    """

    drain_seconds: float = 20.0
    log_level: str = "info"
    log_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which models there are.

    ``default``: model of a request that names none. ``profile``: its profile.
    ``files``: .gguf files outside the models folder.
    """

    default: str = "pocket"
    profile: ProfileName = ProfileName.BALANCED
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """The queue. ``max_waiting``: requests that may wait per model. ``wait_seconds``: how long one may wait."""

    max_waiting: int = 8
    wait_seconds: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamacppSettings:
    """The embedded llama.cpp engine.

    ``slots``: requests that one model runs at the same time. ``threads``: 0 takes the physical
    cores. ``batch_tokens``: prompt tokens of one step. ``load_timeout_seconds``: a load that shows
    no progress for so long has failed. ``silence_timeout_seconds``: so has a request.
    """

    slots: int = 1
    threads: int = 0
    batch_tokens: int = 512
    load_timeout_seconds: float = 300.0
    silence_timeout_seconds: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything."""

    paths: PathSettings
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    models: ModelSettings = field(default_factory=ModelSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    llamacpp: LlamacppSettings = field(default_factory=LlamacppSettings)
