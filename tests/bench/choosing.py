"""What it takes to be told of the hardware and of models for it, and how right the estimate of speed is.

Speeds are those of the daemon's own llama.cpp on this processor, with models of random weights; what is
compared is the estimate that "autotunectl hardware" shows against the rate of a reply of 64 tokens.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil

from tests.bench import processes
from tests.bench.report import Row, median
from tests.engines.random_models import write_large_llama

COMMANDS = 20
REPLIES = 5
REPLY_TOKENS = 64
CTL = (sys.executable, "-m", "autotunectl")
MODELS = {"130 M in Q8_0": (130_000_000, "Q8_0"), "1.1 B in Q4_0": (1_100_000_000, "Q4_0")}


def measure() -> list[Row]:
    with processes.home() as folder:
        files = {}
        for name, (parameters_count, weights) in MODELS.items():
            files[name] = folder / f"model-{len(files)}.gguf"
            write_large_llama(files[name], parameters_count=parameters_count, weights=weights)
        listed = os.pathsep.join(str(path) for path in files.values())
        with processes.daemon(folder, variables={"AUTOTUNE_MODELS_FILES": listed}) as (daemon, _):
            return [*_commands(folder, psutil.Process(daemon.pid)), *_speeds(folder, files)]


def _commands(folder: Path, daemon: psutil.Process) -> list[Row]:
    """Each in a process of its own; the first of all measures the memory of the machine, once for good."""
    environment = processes.environment(folder)
    before = daemon.memory_info().rss
    first = processes.run([*CTL, "hardware"], environment)
    rows = [Row("autotunectl hardware, the very first", 1000 * first, "ms")]
    for verb, target in (("hardware", 300), ("recommend", 400)):
        taken = [processes.run([*CTL, verb], environment) for _ in range(COMMANDS)]
        name = f"autotunectl {verb}, cold process (median of {COMMANDS})"
        rows.append(Row(name, 1000 * median(taken), "ms", target))
    grown = (daemon.memory_info().rss - before) / 1e6
    return [*rows, Row("daemon RSS, more than before these", grown, "MB")]


def _speeds(folder: Path, files: dict[str, Path]) -> list[Row]:
    rows = []
    report = json.loads(_told(folder, "hardware", "--json"))
    estimates = {each["model"]: each["estimated_tokens_per_second"] for each in report["models"]}
    for name, path in files.items():
        measured = median([_reply_rate(folder, path.stem) for _ in range(REPLIES)])
        rows += [
            Row(f"{name}, measured", measured, "tokens/s"),
            Row(f"{name}, estimated", estimates[path.stem], "tokens/s"),
            Row(f"{name}, estimated over measured", estimates[path.stem] / measured, ""),
        ]
    return rows


def _reply_rate(folder: Path, model: str) -> float:
    """Tokens a second of one reply, without its prefill."""
    arguments = ("chat", "Go on.", "-m", model, "--max-tokens", str(REPLY_TOKENS), "--json")
    answer = json.loads(_told(folder, *arguments))
    return float(answer["timings"]["decode_tokens_per_second"])


def _told(folder: Path, *arguments: str) -> str:
    return processes.output([*CTL, *arguments], processes.environment(folder))
