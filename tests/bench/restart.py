"""What a restart and a growth cost a conversation with a long system prompt: restored against recomputed.

Each round runs a real daemon with KV prefixes and one without (``prefixes.disk_mib=0``), in turns, on one
model of random weights and real size. A conversation begins; then the daemon is stopped and started again,
or the next turn asks for a larger context. What is measured is the daemon's time to the first token of
the next turn, with and without the load in it, which both have to wait for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import autotune
from autotune.requests import load_model_request
from autotune.v1 import inference_service_pb2

from tests.bench import processes
from tests.bench.report import Row, median
from tests.engines.random_models import write_large_llama

ROUNDS = 3
MODEL = "large"
PARAMETERS_COUNT = 130_000_000
SYSTEM_TOKENS = 2500
CONTEXT_TOKENS = 4096
LARGER_CONTEXT_TOKENS = 8192
REPLY_TOKENS = 4
TARGET_RATIO = 20
WITHOUT_PREFIXES = ("--set", "prefixes.disk_mib=0")
LINE = "Lighthouse {}: write down the wind, the ships and the weather. "
QUESTION = {"role": "user", "content": "What did the keeper write down?"}


@dataclass(frozen=True)
class Turn:
    """One answer: seconds to its first token, those of the load among them, and prompt tokens."""

    seconds: float
    load_seconds: float
    prompt_tokens: int
    cached_tokens: int
    text: str

    @property
    def own_seconds(self) -> float:
        """Without the load."""
        return self.seconds - self.load_seconds


@dataclass(frozen=True)
class Life:
    """A conversation through two restarts and a growth."""

    stop_seconds: float
    warm: Turn
    cold: Turn
    grown: Turn


def measure() -> list[Row]:
    with processes.home() as folder:
        models = folder / "data" / "models"
        models.mkdir(parents=True)
        write_large_llama(models / f"{MODEL}.gguf", parameters_count=PARAMETERS_COUNT)
        system = _system_prompt(folder)
        restored: list[Life] = []
        computed: list[Life] = []
        for _ in range(ROUNDS):
            restored.append(_live(folder, system, ()))
            computed.append(_live(folder, system, WITHOUT_PREFIXES))
    return [
        Row("prompt", median([life.warm.prompt_tokens for life in restored]), "tokens"),
        *_compared(
            "restart, model loaded",
            [life.warm.own_seconds for life in restored],
            [life.warm.own_seconds for life in computed],
            TARGET_RATIO,
        ),
        *_compared(
            "restart, its load included",
            [life.cold.seconds for life in restored],
            [life.cold.seconds for life in computed],
        ),
        *_compared(
            "growth, after its load",
            [life.grown.own_seconds for life in restored],
            [life.grown.own_seconds for life in computed],
            TARGET_RATIO,
        ),
        *_compared(
            "growth, its load included",
            [life.grown.seconds for life in restored],
            [life.grown.seconds for life in computed],
        ),
        Row("tokens computed after a restart", _evaluated([life.warm for life in restored]), "tokens"),
        Row("tokens computed after a growth", _evaluated([life.grown for life in restored]), "tokens"),
        Row("stop that saves", median([life.stop_seconds for life in restored]), "s"),
        Row("stop that saves nothing", median([life.stop_seconds for life in computed]), "s"),
    ]


def _compared(
    name: str, restored: Sequence[float], computed: Sequence[float], target_ratio: float | None = None
) -> list[Row]:
    ratio = median(computed) / median(restored)
    return [
        Row(f"{name}: restored", 1000 * median(restored), "ms"),
        Row(f"{name}: recomputed", 1000 * median(computed), "ms"),
        Row(f"{name}: times as fast", ratio, "x", target_ratio, at_least=True),
    ]


def _evaluated(turns: Sequence[Turn]) -> float:
    return median([turn.prompt_tokens - turn.cached_tokens for turn in turns])


def _live(folder: Path, system: str, arguments: tuple[str, ...]) -> Life:
    messages = [{"role": "system", "content": system}, QUESTION]
    with _client_of_daemon(folder, arguments) as client:
        client.delete_prefixes()
        first = _turn(client, messages, CONTEXT_TOKENS)
        began = time.perf_counter()
    stop_seconds = time.perf_counter() - began
    messages += [{"role": "assistant", "content": first.text}, QUESTION]
    with _client_of_daemon(folder, arguments) as client:
        for _ in client.load_model(load_model_request(MODEL, CONTEXT_TOKENS)):
            pass
        warm = _turn(client, messages, CONTEXT_TOKENS)
    with _client_of_daemon(folder, arguments) as client:
        cold = _turn(client, messages, CONTEXT_TOKENS)
        messages += [{"role": "assistant", "content": cold.text}, QUESTION]
        grown = _turn(client, messages, LARGER_CONTEXT_TOKENS)
    return Life(stop_seconds, warm, cold, grown)


def _turn(client: autotune.Client, messages: Sequence[dict[str, str]], context_tokens: int) -> Turn:
    reply = client.chat(
        list(messages),
        MODEL,
        temperature=0,
        max_reply_tokens=REPLY_TOKENS,
        context_tokens=context_tokens,
    )
    timings = reply.timings
    return Turn(
        seconds=timings.time_to_first_token_duration.ToTimedelta().total_seconds(),
        load_seconds=timings.load_duration.ToTimedelta().total_seconds(),
        prompt_tokens=reply.usage.prompt_tokens,
        cached_tokens=reply.usage.cached_tokens,
        text=reply.text,
    )


def _system_prompt(folder: Path) -> str:
    """Lines until the engine counts enough tokens."""
    with _client_of_daemon(folder, WITHOUT_PREFIXES) as client:
        for _ in client.load_model(load_model_request(MODEL, CONTEXT_TOKENS)):
            pass
        request = inference_service_pb2.CountTokensRequest(model=MODEL, text=LINE.format(100))
        line_tokens = client.count_tokens(request).tokens
    return "".join(LINE.format(number) for number in range(100, 100 + SYSTEM_TOKENS // line_tokens + 1))


@contextmanager
def _client_of_daemon(folder: Path, arguments: tuple[str, ...]) -> Iterator[autotune.Client]:
    address = f"unix:{folder / 'run' / 'autotuned.sock'}"
    with processes.daemon(folder, *arguments), autotune.Client(address, client_name="bench") as client:
        yield client
