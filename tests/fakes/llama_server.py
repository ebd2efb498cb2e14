"""A program for tests that stands in for ``llama-server``: as strict with options, and as real as the wheel.

    python -I -B llama_server.py CONFIG OPTION...

It knows exactly these options, refuses all others in llama.cpp's words, and serves with llama.cpp's own
server from the wheel. ``installed`` makes a program of it that needs no CONFIG, which is JSON:
``version``, ``devices`` (lines of ``--list-devices``), ``lacks`` (options of newer builds that it does not
know), ``lines`` (what it writes before it loads) and ``layers`` (those that it says it has put on a GPU).
Invariant: what is not set by an option is what llama.cpp makes of it, so that nothing is set by chance.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

VERSION = "10068 (571d0d5)"
H100 = "CUDA0: NVIDIA H100 (81559 MiB, 80000 MiB free)"

# The names of each option, and its argument where it has one.
OPTIONS = (
    ("--help -h --usage", ""),
    ("--version", ""),
    ("--list-devices", ""),
    ("--threads -t", "N"),
    ("--threads-batch -tb", "N"),
    ("--ctx-size -c", "N"),
    ("--predict -n --n-predict", "N"),
    ("--batch-size -b", "N"),
    ("--ubatch-size -ub", "N"),
    ("--swa-full", ""),
    ("--flash-attn -fa", "[on|off|auto]"),
    ("--kv-offload -kvo", ""),
    ("--no-kv-offload -nkvo", ""),
    ("--repack", ""),
    ("--no-repack -nr", ""),
    ("--cache-type-k -ctk", "TYPE"),
    ("--cache-type-v -ctv", "TYPE"),
    ("--mmap", ""),
    ("--no-mmap", ""),
    ("--load-mode -lm", "MODE"),
    ("--n-gpu-layers -ngl --gpu-layers", "N"),
    ("--fit -fit", "[on|off]"),
    ("--check-tensors", ""),
    ("--model -m", "FNAME"),
    ("--log-disable", ""),
    ("--log-colors", "[on|off|auto]"),
    ("--log-verbosity -lv --verbosity", "N"),
    ("--log-prefix", ""),
    ("--log-timestamps", ""),
    ("--offline", ""),
    ("--ctx-checkpoints -ctxcp --swa-checkpoints", "N"),
    ("--cache-ram -cram", "N"),
    ("--kv-unified -kvu", ""),
    ("--no-kv-unified -no-kvu", ""),
    ("--cache-idle-slots", ""),
    ("--no-cache-idle-slots", ""),
    ("--context-shift", ""),
    ("--no-context-shift", ""),
    ("--warmup", ""),
    ("--no-warmup", ""),
    ("--parallel -np", "N"),
    ("--cont-batching -cb", ""),
    ("--alias -a", "STRING"),
    ("--host", "HOST"),
    ("--port", "PORT"),
    ("--cors-origins", "ORIGINS"),
    ("--no-cors-credentials", ""),
    ("--no-ui --no-webui", ""),
    ("--no-ui-mcp-proxy --no-webui-mcp-proxy", ""),
    ("--no-agent -no-ag", ""),
    ("--sse-ping-interval", "N"),
    ("--threads-http", "N"),
    ("--cache-prompt", ""),
    ("--cache-reuse", "N"),
    ("--slots", ""),
    ("--no-slots", ""),
    ("--slot-save-path", "PATH"),
    ("--jinja", ""),
    ("--no-jinja", ""),
    ("--reasoning-format", "FORMAT"),
    ("--prefill-assistant", ""),
    ("--slot-prompt-similarity -sps", "SIMILARITY"),
    ("--sleep-idle-seconds", "SECONDS"),
)
LEVELS = ("0: generic output", "1: error", "2: warning", "3: info", "4: trace (more info)", "5: debug")
NUMBERS = {"N", "PORT", "SECONDS"}


def installed(folder: Path, name: str = "llama-server", **config: object) -> Path:
    """Writes a program that is this one with this configuration, and returns its path."""
    argv = [sys.executable, "-I", "-B", str(Path(__file__).resolve()), json.dumps(config)]
    return script(folder / name, f'exec {shlex.join(argv)} "$@"')


def script(path: Path, text: str) -> Path:
    """Writes a program of these shell commands, and returns its path."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def main() -> int:
    """What the program does."""
    config = json.loads(sys.argv[1])
    known = {
        name: (names.split()[0], argument)
        for names, argument in OPTIONS
        for name in names.split()
        if names.split()[0] not in config.get("lacks", [])
    }
    try:
        given = parsed(known, sys.argv[2:])
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if "--version" in given:
        sys.stderr.write(f"version: {config.get('version', VERSION)}\nbuilt with GNU 11.4.0 for Linux\n")
    elif "--help" in given:
        sys.stdout.write(help_text(known))
    elif "--list-devices" in given:
        devices = "".join(f"  {device}\n" for device in config.get("devices", []))
        sys.stdout.write(f"Available devices:\n{devices}")
    else:
        return serve(given, config)
    return 0


def parsed(known: dict[str, tuple[str, str]], words: list[str]) -> dict[str, str]:
    """Options by their first name. Raises ``ValueError`` in the words of the original."""
    given = {}
    rest = iter(words)
    for word in rest:
        if word not in known:
            raise ValueError(f"error: invalid argument: {word}")
        name, argument = known[word]
        value = next(rest, None) if argument else ""
        if value is None:
            raise ValueError(f'error while handling argument "{word}": expected value for argument')
        if argument in NUMBERS and not value.lstrip("-").isdecimal():
            raise ValueError(f'error while handling argument "{word}": stoi')
        if argument.startswith("[") and value not in argument.strip("[]").split("|"):
            raise ValueError(f"error while handling argument \"{word}\": error: unknown value '{value}'")
        given[name] = value
    return given


def help_text(known: dict[str, tuple[str, str]]) -> str:
    """A list of options in the layout of the original."""
    lines = ["----- common params -----", ""]
    for names, argument in OPTIONS:
        first, *others = names.split()
        if first in known:
            head = ", ".join((*others, first)) + (f" {argument}" if argument else "")
            lines += [f"{head:39} see --help of others, such as --nothing", " " * 40 + "(env: LLAMA_ARG_X)"]
        if first == "--log-verbosity" and first in known:
            lines += [f"{'':41}- {level}" for level in LEVELS]
    return "\n".join(lines) + "\n"


def serve(given: dict[str, str], config: dict) -> int:
    """Loads, serves until SIGTERM."""
    import xllamacpp

    for line in config.get("lines", []):
        sys.stderr.write(f"{line}\n")
    if config.get("devices"):
        layers = config.get("layers", 0)
        placed = min(int(given.get("--n-gpu-layers", layers)), layers)
        sys.stderr.write(f"0.00.001.000 I load_tensors: offloaded {placed}/{layers} layers to GPU\n")
    sys.stderr.flush()
    params = xllamacpp.CommonParams()
    set_load(xllamacpp, params, given)
    set_service(xllamacpp, params, given)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    del server
    return 0


def set_load(xllamacpp, params, given: dict[str, str]) -> None:
    """The options that memory depends on."""
    flash, mode = xllamacpp.llama_flash_attn_type, xllamacpp.llama_load_mode
    params.model.path = given["--model"]
    params.n_ctx = int(given.get("--ctx-size", "0"))
    params.n_parallel = int(given.get("--parallel", "-1"))
    params.kv_unified = "--kv-unified" in given
    params.n_batch = int(given.get("--batch-size", "2048"))
    params.n_ubatch = int(given.get("--ubatch-size", "512"))
    params.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{given.get('--cache-type-k', 'f16').upper()}"]
    params.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{given.get('--cache-type-v', 'f16').upper()}"]
    params.flash_attn_type = {
        "on": flash.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": flash.LLAMA_FLASH_ATTN_TYPE_DISABLED,
        "auto": flash.LLAMA_FLASH_ATTN_TYPE_AUTO,
    }[given.get("--flash-attn", "auto")]
    unmapped = "--no-mmap" in given or given.get("--load-mode") == "none"
    params.load_mode = mode.LLAMA_LOAD_MODE_NONE if unmapped else mode.LLAMA_LOAD_MODE_MMAP
    params.fit_params = given.get("--fit", "on") == "on"
    params.cache_ram_mib = int(given.get("--cache-ram", "8192"))
    params.cache_idle_slots = "--no-cache-idle-slots" not in given
    params.n_ctx_checkpoints = int(given.get("--ctx-checkpoints", "32"))
    params.warmup = "--no-warmup" not in given
    params.sleep_idle_seconds = int(given.get("--sleep-idle-seconds", "-1"))


def set_service(xllamacpp, params, given: dict[str, str]) -> None:
    """The others."""
    params.model_alias = {given["--alias"]} if "--alias" in given else set()
    params.hostnames = [given.get("--host", "127.0.0.1")]
    params.port = int(given.get("--port", "8080"))
    params.offline = "--offline" in given
    params.verbosity = int(given.get("--log-verbosity", "3"))
    params.cpuparams.n_threads = int(given.get("--threads", "-1"))
    params.cpuparams_batch.n_threads = int(given.get("--threads-batch", "-1"))
    params.n_threads_http = int(given.get("--threads-http", "-1"))
    params.ctx_shift = "--context-shift" in given
    params.n_cache_reuse = int(given.get("--cache-reuse", "0"))
    params.slot_prompt_similarity = float(given.get("--slot-prompt-similarity", "0.1"))
    params.slot_save_path = given.get("--slot-save-path", "")
    params.use_jinja = "--no-jinja" not in given
    if given.get("--reasoning-format") == "deepseek":
        params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_DEEPSEEK
    params.n_predict = int(given.get("--predict", "-1"))
    params.sse_ping_interval = int(given.get("--sse-ping-interval", "30"))
    params.endpoint_slots = "--no-slots" not in given
    params.ui = "--no-ui" not in given
    params.cors_origins = given.get("--cors-origins", "*")
    params.cors_credentials = "--no-cors-credentials" not in given
    # As the original, it takes from the environment what its command line does not say.
    params.api_keys = [key for key in os.environ.get("LLAMA_API_KEY", "").split(",") if key]


if __name__ == "__main__":
    sys.exit(main())
