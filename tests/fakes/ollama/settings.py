"""What the environment says, read as Ollama reads it; durations are Go's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOREVER_SECONDS = (2**63 - 1) / 1e9
DEFAULT_VERSION = "0.33.3"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PARTS = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)?")
# The versions from which an answer says how much of its prompt was cached.
_CACHED_COUNT_VERSION = (0, 33, 3)


@dataclass(frozen=True, slots=True)
class Settings:
    """One server's settings. The last three are the double's own."""

    host: str
    port: int
    models: Path
    keep_alive_seconds: float
    parallel: int
    max_queue: int
    max_loaded: int
    context_length: int
    flash_attention: bool | None
    kv_cache_type: str
    version: str
    reload_seconds: float
    registry: str

    @property
    def reports_cached(self) -> bool:
        found = re.findall(r"\d+", self.version)[:3]
        return tuple(map(int, found)) >= _CACHED_COUNT_VERSION


def settings_from(environment: Mapping[str, str]) -> Settings:
    """The settings of this environment, with Ollama's defaults on a machine without a GPU."""
    host, port = _host(environment.get("OLLAMA_HOST", ""))
    return Settings(
        host=host,
        port=port,
        models=Path(environment.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models"),
        keep_alive_seconds=_keep_alive(environment.get("OLLAMA_KEEP_ALIVE", "")),
        parallel=max(1, _number(environment, "OLLAMA_NUM_PARALLEL", 1)),
        max_queue=_number(environment, "OLLAMA_MAX_QUEUE", 512),
        max_loaded=_number(environment, "OLLAMA_MAX_LOADED_MODELS", 0) or 3,
        context_length=_number(environment, "OLLAMA_CONTEXT_LENGTH", 0),
        flash_attention=_flag(environment.get("OLLAMA_FLASH_ATTENTION", "")),
        kv_cache_type=environment.get("OLLAMA_KV_CACHE_TYPE", "").lower(),
        version=environment.get("OLLAMA_DOUBLE_VERSION") or DEFAULT_VERSION,
        reload_seconds=float(environment.get("OLLAMA_DOUBLE_RELOAD_SECONDS") or 0.05),
        registry=environment.get("OLLAMA_DOUBLE_REGISTRY", ""),
    )


def runner_environment() -> dict[str, str]:
    """What a runner inherits and llama.cpp reads."""
    return {name: value for name, value in os.environ.items() if name.startswith("LLAMA_ARG_")}


def parse_duration(text: str) -> float:
    """Seconds of a Go duration. Raises ``ValueError`` with Go's words."""
    quoted = '"' + text + '"'
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text[1:] if text[:1] in {"+", "-"} else text
    if rest == "0":
        return 0.0
    seconds, position = 0.0, 0
    while position < len(rest):
        part = _PARTS.match(rest, position)
        if part is None:
            raise ValueError(f"time: invalid duration {quoted}")
        if part[2] is None:
            unit = re.match(r"[^\d.]*", rest[part.end() :])
            if unit is None or not unit[0]:
                raise ValueError(f"time: missing unit in duration {quoted}")
            raise ValueError(f'time: unknown unit "{unit[0]}" in duration {quoted}')
        seconds += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    if not rest:
        raise ValueError(f"time: invalid duration {quoted}")
    return sign * seconds


def _host(text: str) -> tuple[str, int]:
    scheme, found, rest = text.strip().partition("://")
    default = {"http": 80, "https": 443}.get(scheme, 11434) if found else 11434
    rest = (rest if found else scheme).partition("/")[0]
    name, found, port = rest.rpartition(":")
    if not found:
        return rest or "127.0.0.1", default
    number = int(port) if port.isdecimal() and int(port) <= 65535 else default
    return name.strip("[]") or "0.0.0.0", number  # noqa: S104  # that is what the original does


def _keep_alive(text: str) -> float:
    seconds = 300.0
    if text:
        try:
            seconds = parse_duration(text)
        except ValueError:
            seconds = float(text) if re.fullmatch(r"[+-]?\d+", text) else seconds
    return FOREVER_SECONDS if seconds < 0 else seconds


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").strip()
    return int(text) if text.isdecimal() else default


def _flag(text: str) -> bool | None:
    """None when it is not set; what is no word of Go's is a yes, as there."""
    if not text:
        return None
    return text not in {"0", "f", "F", "false", "FALSE", "False"}
