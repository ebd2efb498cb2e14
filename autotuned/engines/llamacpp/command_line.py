"""The command line of a ``llama-server`` that does exactly what ``worker`` does with the wheel.

``engine`` asks for each load, ``builds`` whether a program knows enough options at all.
Invariant: every default that memory, answers or privacy depend on is set, whether or not it is already
what it should be; only options that the program itself lists are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# The level that shows every buffer of a load, by the words that explain it in the help; builds without
# such a list show them as they are.
_LOG_LEVELS = (
    ("4", re.compile(r"^\s+- 4: trace", re.MULTILINE)),
    ("3", re.compile(r"^\s+- 3: info", re.MULTILINE)),
)

# What memory depends on; of several names the program must know one.
NEEDED = (
    ("--model",),
    ("--alias",),
    ("--host",),
    ("--ctx-size",),
    ("--parallel",),
    ("--kv-unified",),
    ("--batch-size",),
    ("--ubatch-size",),
    ("--flash-attn",),
    ("--cache-type-k",),
    ("--cache-type-v",),
    ("--n-gpu-layers",),
    ("--load-mode", "--no-mmap"),
    ("--cache-ram",),
    ("--ctx-checkpoints", "--swa-checkpoints"),
    ("--slot-save-path",),
    ("--threads",),
    ("--threads-batch",),
    ("--threads-http",),
    ("--jinja",),
    ("--reasoning-format",),
)


def missing_options(known: Mapping[str, str]) -> tuple[str, ...]:
    """The options without which a program cannot be told how much memory to take."""
    missing = [names[0] for names in NEEDED if not any(name in known for name in names)]
    # Once it was a switch, and could not be turned off.
    if "--flash-attn" in known and not known["--flash-attn"].startswith("["):
        missing.append("--flash-attn on|off")
    return tuple(missing)


def log_level_in(help_text: str) -> str:
    """The argument of ``--log-verbosity``; "" where the help names no levels."""
    return next((level for level, pattern in _LOG_LEVELS if pattern.search(help_text)), "")


def command_line(known: Mapping[str, str], settings: Mapping[str, Any], *, log_level: str) -> tuple[str, ...]:
    """The arguments for ``shape.worker_settings``. ``known`` are the options of the program's help."""
    words: list[str] = []
    for names, *values in (*_memory(known, settings), *_serving(settings), *_log(log_level)):
        # Where it does not know what is switched off here, it does not do it either.
        name = next((name for name in names.split() if name in known), "")
        if name:
            words += [name, *values]
    return tuple(words)


def _memory(known: Mapping[str, str], settings: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The shape, and nothing beside it: no fitting, no caches that were not planned."""
    mapped = settings["memory_mapped"]
    yield "--model", settings["model"]
    yield "--ctx-size", str(settings["cells_count"])
    yield "--parallel", str(settings["slots_count"])
    yield ("--kv-unified" if settings["kv_unified"] else "--no-kv-unified",)
    yield "--batch-size", str(settings["batch_tokens"])
    yield "--ubatch-size", str(settings["micro_batch_tokens"])
    yield "--cache-type-k", settings["key_cache_type"]
    yield "--cache-type-v", settings["value_cache_type"]
    yield "--flash-attn", "on" if settings["flash_attention"] else "off"
    yield "--n-gpu-layers", str(settings["gpu_layers_count"])
    if "--load-mode" in known:
        yield "--load-mode", "mmap" if mapped else "none"
    else:
        yield ("--mmap" if mapped else "--no-mmap",)
    yield "--fit", "off"
    yield ("--kv-offload",)
    yield ("--repack",)
    yield ("--warmup",)
    yield "--cache-ram", str(settings["host_prompt_cache_mib"])
    # Would empty a slot into that cache as soon as another one is used: nothing could be saved from it.
    yield ("--no-cache-idle-slots",)
    yield "--ctx-checkpoints --swa-checkpoints", str(settings["context_checkpoints_count"])
    yield "--sleep-idle-seconds", "-1"


def _serving(settings: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """How requests are served, and what is not served at all."""
    yield "--alias", settings["alias"]
    yield "--host", settings["socket"]
    yield ("--offline",)
    yield "--threads", str(settings["threads_count"])
    yield "--threads-batch", str(settings["threads_count"])
    yield "--threads-http", str(settings["http_threads_count"])
    yield ("--cont-batching",)
    yield ("--no-context-shift",)
    yield ("--cache-prompt",)
    yield "--cache-reuse", "0"
    yield "--slot-prompt-similarity", "0.1"
    yield "--slot-save-path", settings["prefix_folder"]
    yield ("--jinja",)
    yield ("--prefill-assistant",)
    yield "--reasoning-format", "deepseek"
    yield "--predict", "-1"
    # Silence is how the daemon sees a server that hangs.
    yield "--sse-ping-interval", "-1"
    yield ("--slots",)
    yield ("--no-ui --no-webui",)
    yield ("--no-ui-mcp-proxy --no-webui-mcp-proxy",)
    yield ("--no-agent",)
    yield "--cors-origins", ""
    yield ("--no-cors-credentials",)


def _log(level: str) -> Iterator[tuple[str, ...]]:
    """Lines that show every buffer, each with its level, without colours."""
    yield ("--log-prefix",)
    yield ("--log-timestamps",)
    yield "--log-colors", "off"
    if level:
        yield "--log-verbosity", level
