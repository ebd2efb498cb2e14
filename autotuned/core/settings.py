"""The settings of every part, as frozen values with their defaults.

``config`` reads them from file, environment and flags; ``daemon`` hands each part its slice.
A field here is an option there: its docstring line is the option's documentation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from autotuned.core.chat import ProfileName


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a number may have, both ends included; every number here has one."""

    minimum: float
    maximum: float


_WEEK_SECONDS = 7 * 24 * 3600.0
_YEAR_SECONDS = 366 * 24 * 3600.0

Seconds = Annotated[float, Range(0.0, _WEEK_SECONDS)]
Timeout = Annotated[float, Range(0.1, _WEEK_SECONDS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSettings:
    """Folders. ``data``: models and database; ``runtime``: sockets and lock; ``state``: logs."""

    data: Path
    runtime: Path
    state: Path

    @property
    def prefixes(self) -> Path:
        """Where saved KV prefixes lie."""
        return self.data / "prefixes"

    @property
    def registry_store(self) -> Path:
        """Where models of registries lie, in Ollama's layout: "manifests" and "blobs"."""
        return self.data / "registry"

    @property
    def own_hub_cache(self) -> Path:
        """Where models of Hugging Face go when the cache that its libraries share is off."""
        return self.data / "huggingface"

    @property
    def own_registry(self) -> Path:
        """Where a user's own file of downloadable models is looked for."""
        return self.data / "models.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """How the daemon lives.

    ``drain_seconds``: how long running requests may take to finish when the daemon stops.
    ``log_level``: the least severe lines to log.
    ``log_file``: where to log; empty is standard error.
    """

    drain_seconds: Seconds = 20.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which models there are.

    ``default``: model of a request that names none.
    ``profile``: profile of a request that names none.
    ``files``: .gguf files outside the models folder.
    ``keep_alive_seconds``: how long an idle model stays; -1 keeps it until its memory is needed.
    ``kv_cache``: type of the KV cache; auto takes the profile's at the first load, and Q8_0 when
    memory is short.
    """

    default: str = "pocket"
    profile: ProfileName = ProfileName.BALANCED
    files: tuple[Path, ...] = ()
    keep_alive_seconds: Annotated[float, Range(-1.0, _YEAR_SECONDS)] = -1.0
    kv_cache: Literal["auto", "f16", "q8_0"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Models that other programs downloaded; llama.cpp and MLX run them where they lie.

    ``ollama``: auto looks where Ollama keeps its models, off nowhere; anything else is the folder with
    "manifests" and "blobs".
    ``lmstudio``: auto looks where LM Studio keeps its models, off nowhere; anything else is the folder
    with the publishers.
    ``huggingface``: auto looks into the cache of the Hugging Face libraries, off nowhere; anything else
    is the folder with the repositories.
    """

    ollama: str = "auto"
    lmstudio: str = "auto"
    huggingface: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullSettings:
    """Where models are downloaded from.

    ``registry_url``: the registry of names without a host; it speaks Ollama's protocol.
    ``huggingface_url``: the hub of names that begin with "hf:"; empty takes HF_ENDPOINT, else huggingface.co.
    ``insecure_hosts``: registries, as host or host:port, that are asked without TLS; those of this machine
    always are.
    ``disk_margin_mib``: room that a download leaves free on its disk.
    ``silence_timeout_seconds``: a connection without a byte for so long has failed and is tried again.
    ``patience_seconds``: how long a source that fails again and again is tried without a byte of progress.
    """

    registry_url: str = "https://registry.ollama.ai"
    huggingface_url: str = ""
    insecure_hosts: tuple[str, ...] = ()
    disk_margin_mib: Annotated[int, Range(0, 1 << 24)] = 1024
    silence_timeout_seconds: Timeout = 30.0
    patience_seconds: Timeout = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """How memory is shared with the other programs of the machine.

    ``swap``: what a load that does not fit does when the request does not say; allow goes on as long
    as the machine has swap for it, never refuses it.
    ``margin_mib``: memory that a load leaves free, at most a sixth of the machine's.
    ``prompt_cache``: share of the memory that a load leaves free for KV states of conversations that
    are in no slot.
    """

    swap: Literal["allow", "never"] = "allow"
    margin_mib: Annotated[int, Range(0, 1 << 20)] = 1536
    prompt_cache: Annotated[float, Range(0.0, 0.9)] = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixSettings:
    """KV prefixes on disk: what was computed outlives an unload and a restart, and a crash once it rested.

    ``disk_mib``: the most that they take; 0 saves none.
    ``expire_seconds``: how long one that nobody uses is kept.
    ``idle_seconds``: how long a conversation rests before it is saved.
    """

    disk_mib: Annotated[int, Range(0, 1 << 24)] = 4096
    expire_seconds: Annotated[float, Range(0.0, _YEAR_SECONDS)] = _WEEK_SECONDS
    idle_seconds: Timeout = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """The queue of a model.

    ``max_waiting``: requests that may wait. ``wait_seconds``: how long one may wait.
    """

    max_waiting: Annotated[int, Range(0, 10_000)] = 8
    wait_seconds: Seconds = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamacppSettings:
    """The embedded llama.cpp engine.

    ``server``: auto runs the llama-server on PATH, or the build in the package where there is none;
    embedded always runs that one; anything else is the path of a llama-server.
    ``slots``: requests that one model runs at the same time.
    ``threads``: threads of one model; 0 takes the physical cores, fewer for a small model.
    ``batch_tokens``: prompt tokens of one step; 0 chooses a number that takes about 250 ms.
    ``load_timeout_seconds``: a load without progress for so long has failed.
    ``silence_timeout_seconds``: a request without a sign of life for so long has failed.
    """

    server: str = "auto"
    slots: Annotated[int, Range(1, 64)] = 1
    threads: Annotated[int, Range(0, 1024)] = 0
    batch_tokens: Annotated[int, Range(0, 16_384)] = 0
    load_timeout_seconds: Timeout = 300.0
    silence_timeout_seconds: Timeout = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MlxSettings:
    """MLX, in worker processes of the daemon.

    ``mode``: auto uses it where mlx-lm is installed; off never does.
    ``batch_tokens``: prompt tokens of one step; 0 chooses a number that takes about 250 ms.
    ``load_timeout_seconds``: a load without progress for so long has failed.
    ``silence_timeout_seconds``: a request without a sign of life for so long has failed.
    """

    mode: Literal["auto", "off"] = "auto"
    batch_tokens: Annotated[int, Range(0, 16_384)] = 0
    load_timeout_seconds: Timeout = 300.0
    silence_timeout_seconds: Timeout = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaSettings:
    """Ollama.

    ``mode``: auto uses a running server, or starts "ollama serve" where it is installed; attach starts
    none; managed runs a server of the daemon's own with the options below; off never looks for one.
    ``url``: where the server is, or is to be; empty is 127.0.0.1:11434.
    ``kv_cache``: type of the KV cache of a managed server.
    ``slots``: requests that one model of a managed server runs at the same time.
    ``prompt_cache_mib``: memory of a managed server for KV states of conversations that are in no slot.
    ``load_timeout_seconds``: a load that takes longer has failed.
    ``silence_timeout_seconds``: a request without a sign of life for so long has failed.
    """

    mode: Literal["auto", "attach", "managed", "off"] = "auto"
    url: str = ""
    kv_cache: Literal["f16", "q8_0"] = "f16"
    slots: Annotated[int, Range(1, 64)] = 1
    prompt_cache_mib: Annotated[int, Range(0, 1 << 20)] = 1024
    load_timeout_seconds: Timeout = 300.0
    silence_timeout_seconds: Timeout = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LmstudioSettings:
    """LM Studio.

    ``mode``: auto uses a running server; off never looks for one.
    ``url``: where the server is; empty is 127.0.0.1:1234.
    ``token_file``: a file with its API token, readable by its owner alone; empty for a server without one.
    ``load_timeout_seconds``: a load that takes longer has failed.
    ``silence_timeout_seconds``: a request without a sign of life for so long has failed.
    """

    mode: Literal["auto", "off"] = "auto"
    url: str = ""
    token_file: str = ""
    load_timeout_seconds: Timeout = 300.0
    silence_timeout_seconds: Timeout = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenaiSettings:
    """OpenAI-compatible servers, here or elsewhere.

    ``upstreams``: each "NAME=URL", then, as far as needed, "token=env:VARIABLE" or "token=file:PATH" and
    "slots=NUMBER"; servers with one name are equals that stand in for each other.
    ``silence_timeout_seconds``: a request without a sign of life for so long has failed.
    """

    upstreams: tuple[str, ...] = ()
    silence_timeout_seconds: Timeout = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which engine runs a model that several could run.

    ``prefer``: an engine's name; auto takes the one that is fastest here.
    """

    prefer: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything."""

    paths: PathSettings
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    models: ModelSettings = field(default_factory=ModelSettings)
    stores: StoreSettings = field(default_factory=StoreSettings)
    pull: PullSettings = field(default_factory=PullSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    prefixes: PrefixSettings = field(default_factory=PrefixSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    engines: EngineSettings = field(default_factory=EngineSettings)
    llamacpp: LlamacppSettings = field(default_factory=LlamacppSettings)
    mlx: MlxSettings = field(default_factory=MlxSettings)
    ollama: OllamaSettings = field(default_factory=OllamaSettings)
    lmstudio: LmstudioSettings = field(default_factory=LmstudioSettings)
    openai: OpenaiSettings = field(default_factory=OpenaiSettings)
