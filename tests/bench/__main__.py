"""Runs every benchmark, or those that are named.

python -m tests.bench [latency] [streaming] [footprint] [restart] [squeeze]

``tests.bench.soak`` runs by itself: it takes as long as one likes and ends well or not.
"""

from __future__ import annotations

import sys

from tests.bench import footprint, latency, restart, squeeze, streaming
from tests.bench.report import machine, save, show

SECTIONS = {
    "latency": ("Added latency: time to first token", latency.measure),
    "streaming": ("Streaming ceiling: one stream, an engine that is not the limit", streaming.measure),
    "footprint": ("Footprint", footprint.measure),
    "restart": ("Restart and growth of a long conversation: restored against recomputed", restart.measure),
    "squeeze": ("Memory gets short", squeeze.measure),
}


def main(wanted: list[str]) -> None:
    print(", ".join(f"{key}: {value}" for key, value in machine().items()))
    results = {}
    for name in wanted or SECTIONS:
        title, measure = SECTIONS[name]
        results[title] = measure()
        show(title, results[title])
    print(f"\nsaved as {save(results)}")


if __name__ == "__main__":
    main(sys.argv[1:])
