"""Runs every benchmark, or those that are named.

python -m tests.bench [latency] [streaming] [footprint] [planning] [kv_memory] [restart] [day] [squeeze]
                      [kv_quality] [pull] [choosing] [adapters] [alternation] [mlx] [accidents]

"engines" stands for the last four.
``tests.bench.soak`` runs by itself: it takes as long as one likes and ends well or not.
"""

from __future__ import annotations

import sys

from tests.bench import (
    accidents,
    adapters,
    alternation,
    choosing,
    day,
    footprint,
    kv_memory,
    kv_quality,
    latency,
    mlx,
    planning,
    pull,
    restart,
    squeeze,
    streaming,
)
from tests.bench.report import machine, save, show

SECTIONS = {
    "latency": ("Added latency: time to first token", latency.measure),
    "streaming": ("Streaming ceiling: one stream, an engine that is not the limit", streaming.measure),
    "footprint": ("Footprint", footprint.measure),
    "planning": ("One plan", planning.measure),
    "kv_memory": ("KV cache of a chat turn against llama.cpp started by hand", kv_memory.measure),
    "restart": ("Restart and growth of a long conversation: restored against recomputed", restart.measure),
    "day": ("A recorded day of three programs", day.measure),
    "squeeze": ("Memory gets short", squeeze.measure),
    "kv_quality": ("Answers with a Q8_0 KV cache against F16", kv_quality.measure),
    "choosing": ("What have I got, and what should I run", choosing.measure),
    "pull": ("A pull from a real registry", pull.measure),
    "adapters": ("Added latency on each engine: time to first token", adapters.measure),
    "alternation": ("Two programs on Ollama (double), one of which sets a context", alternation.measure),
    "mlx": ("MLX on the CPU: rates, and what its KV states spare", mlx.measure),
    "accidents": ("Kills and hangs of what runs models", accidents.measure),
}
GROUPS = {"engines": ("adapters", "alternation", "mlx", "accidents")}


def main(wanted: list[str]) -> None:
    print(", ".join(f"{key}: {value}" for key, value in machine().items()))
    results = {}
    for name in [name for each in wanted or SECTIONS for name in GROUPS.get(each, (each,))]:
        title, measure = SECTIONS[name]
        results[title] = measure()
        show(title, results[title])
        path = save(results)
    print(f"\nsaved as {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
