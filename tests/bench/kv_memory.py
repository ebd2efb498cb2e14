"""What the KV cache of a chat turn takes, against llama.cpp started by hand.

One random-weight model of over 100 M parameters, one short prompt, temperature 0. By hand means the
same library with 4,096 tokens of context, and with nothing set at all: the trained context, shared by
four slots, as ``llama-server -m FILE`` does. The text must be the same in all of them. What a process
holds is read from the system, after the same answer was given.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import autotune
import psutil
from autotune.v1 import model_pb2

from tests.bench import processes
from tests.bench.report import Row
from tests.engines.random_models import write_large_llama

PROMPT = "Tell me, in your own words, what a KV cache is and why every local model has one."
PIECES = 48
BY_HAND = Path(__file__).with_name("by_hand.py")


@dataclass(frozen=True)
class Turn:
    """One way to answer, and what it took."""

    text: str
    context_tokens: int
    kv_cache_bytes: int
    resident_bytes: int


def measure() -> list[Row]:
    with processes.home() as folder:
        model = write_large_llama(folder / "large.gguf")
        plain = _by_hand(model, 4096, 1)
        default = _by_hand(model, 0, 4)
        same_shape = _turn(model, context_tokens=4096)
        limited = _turn(model, max_reply_tokens=512)
        open_ended = _turn(model)
        eight_bits = _turn(model, max_reply_tokens=512, profile="fast")
        open_eight_bits = _turn(model, kv_cache="q8_0")
    turns = (
        ("reply of at most 512", limited, 67),
        ("reply of any length", open_ended, 67),
        ("reply of at most 512, Q8_0", eight_bits, 80),
        ("reply of any length, Q8_0", open_eight_bits, 80),
    )
    return list(_rows(plain, default, same_shape, turns))


def _rows(
    plain: Turn, default: Turn, same_shape: Turn, turns: Sequence[tuple[str, Turn, float]]
) -> Iterator[Row]:
    yield Row("llama.cpp with 4,096 tokens, KV cache", plain.kv_cache_bytes / 2**20, "MiB")
    yield Row("llama.cpp with nothing set, KV cache", default.kv_cache_bytes / 2**20, "MiB")
    for name, turn, target in turns:
        saved = 100 * (1 - turn.kv_cache_bytes / plain.kv_cache_bytes)
        yield Row(f"{name}: context", turn.context_tokens, "tokens")
        yield Row(f"{name}: KV cache", turn.kv_cache_bytes / 2**20, "MiB")
        yield Row(f"{name}: less than with 4,096", saved, "%", target, at_least=True)
        yield Row(
            f"{name}: less than with nothing set",
            100 * (1 - turn.kv_cache_bytes / default.kv_cache_bytes),
            "%",
            target,
            at_least=True,
        )
        computed = same_shape.kv_cache_bytes - turn.kv_cache_bytes
        fell = same_shape.resident_bytes - turn.resident_bytes
        yield Row(
            f"{name}: process memory fell by {fell / 2**20:,.0f} MiB of {computed / 2**20:,.0f} computed, off by",
            100 * abs(fell / computed - 1),
            "%",
            5,
        )
    yield Row("llama.cpp with 4,096 tokens, process memory", plain.resident_bytes / 2**20, "MiB")
    for name, turn, _ in turns:
        yield Row(f"{name}: process memory", turn.resident_bytes / 2**20, "MiB")
    for name, turn, _ in turns[:2]:  # another KV type may decide a close call otherwise
        yield Row(
            f"{name}: text equal to that of llama.cpp with 4,096",
            100.0 * (turn.text == plain.text and turn.text != ""),
            "%",
            100,
            at_least=True,
        )


def _turn(model: Path, *, kv_cache: str = "auto", **options: Any) -> Turn:
    """Has a daemon that has seen nothing before answer, and looks at its worker in the middle of it."""
    with (
        processes.home() as folder,
        processes.daemon(folder, "--set", f"models.files={model}", "--set", f"models.kv_cache={kv_cache}"),
        closing(autotune.Client(f"unix:{folder / 'run' / 'autotuned.sock'}", "bench")) as client,
    ):
        return _answered(client, options)


def _answered(client: autotune.Client, options: dict[str, Any]) -> Turn:
    request = autotune.chat_request(PROMPT, model="large", temperature=0.0, **options)
    with closing(client.generate(request)) as events:
        text = _first_pieces(event.delta.text for event in events if event.WhichOneof("event") == "delta")
        running = _running(client)
        resident = psutil.Process(running.process_id).memory_info().rss
    return Turn(text, running.shape.context_tokens, running.footprint.kv_cache_bytes, resident)


def _running(client: autotune.Client) -> model_pb2.RunningModel:
    return client.list_running_models()[0]


def _first_pieces(pieces: Iterator[str]) -> str:
    """The text of so many characters as surely lie within the pieces: both ways must read as far."""
    text = ""
    for piece in pieces:
        text += piece
        if len(text) >= PIECES:
            break
    return text[:PIECES]


def _by_hand(model: Path, context_tokens: int, slots_count: int) -> Turn:
    with _started(model, context_tokens, slots_count) as told:
        return Turn(
            text=str(told["text"])[:PIECES],
            context_tokens=int(told["context_tokens"]),
            kv_cache_bytes=int(told["kv_cache_bytes"]),
            resident_bytes=int(told["resident_bytes"]),
        )


@contextmanager
def _started(model: Path, context_tokens: int, slots_count: int) -> Iterator[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, str(BY_HAND), str(model), str(context_tokens), str(slots_count), PROMPT],
        check=True,
        capture_output=True,
        text=True,
    )
    yield json.loads(done.stdout.splitlines()[-1])
