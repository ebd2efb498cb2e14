"""Everything that runs models is killed or hangs, again and again, under one daemon that goes on.

Each request of an accident ends with its whole answer or with an error that has a reason; each engine
answers again afterwards; the daemon holds what it held before. ``engine_accidents`` causes them and ends
the run where one of this does not hold.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import autotune
import psutil

from tests.bench.house import TITLES, Open, opened
from tests.bench.report import Row, median
from tests.bench.soak import Holdings, zero
from tests.engine_accidents import ALLOWED_REASONS, ENVIRONMENT, Report, ask, cause_accidents
from tests.engine_house import ENGINES
from tests.fakes.serving import is_alive

COUNT = 1000
SEED = 1
# So many that one whose crashes make it wait is seldom met again before its time is over.
COPIES_COUNT = 24
SLACK_SECONDS = 45.0
SETTLE_SECONDS = 30.0
LOOK_SECONDS = 0.2
POOL_THREADS = 6
"""The threads of a pool are made when they are first needed together, and stay."""


def measure() -> list[Row]:
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    async with opened(engines=ENGINES, copies_count=COPIES_COUNT, variables=ENVIRONMENT) as everything:
        daemon = psutil.Process(everything.daemon.pid)
        await _ask_all(everything)
        before = await _settled(daemon, everything)
        started = time.perf_counter()
        report = await cause_accidents(
            count=COUNT,
            seed=SEED,
            models=everything.house.models,
            house=everything.house,
            address=everything.address,
            daemon_id=daemon.pid,
            slack_seconds=SLACK_SECONDS,
        )
        seconds = time.perf_counter() - started
        await _ask_all(everything)
        after = await _settled(daemon, everything, before)
        family = daemon.children(recursive=True)
    left = sum(map(is_alive, family))
    return [
        *_rows(report, seconds),
        zero("leaks: descriptors of the daemon", after[0].descriptors - before[0].descriptors),
        zero("leaks: processes", after[1] - before[1]),
        zero("leaks: sockets and files of the runtime folder", after[2] - before[2]),
        zero("leaks: processes after the daemon's end", left),
        Row("threads of the daemon more", after[0].threads - before[0].threads, "", POOL_THREADS),
        Row("RSS of the daemon more", after[0].resident_megabytes - before[0].resident_megabytes, "MB"),
    ]


def _rows(report: Report, seconds: float) -> list[Row]:
    outcomes = report.outcomes
    kinds = Counter(f"{each.accident.kind.name} {each.accident.moment.value}" for each in outcomes)
    engines = Counter(each.accident.engine for each in outcomes)
    typed = {reason: count for reason, count in report.reasons.items() if reason in ALLOWED_REASONS}
    answered = report.reasons[""]
    return [
        *(Row(f"accidents: {kind}", count, "") for kind, count in sorted(kinds.items())),
        *(Row(f"accidents: {TITLES[engine]}", count, "") for engine, count in engines.most_common()),
        Row("requests answered whole", answered, ""),
        *(Row(f"requests failed: {reason}", count, "") for reason, count in sorted(typed.items())),
        zero("requests failed without a reason", len(outcomes) - answered - sum(typed.values())),
        Row("an engine answers again, median", median([each.recovery_seconds for each in outcomes]), "s"),
        Row("an engine answers again, at most", max(each.recovery_seconds for each in outcomes), "s"),
        Row(f"{len(outcomes)} accidents took", seconds, "s"),
    ]


async def _ask_all(everything: Open) -> None:
    """Has every model answer, which loads it where it is not."""
    async with autotune.AsyncClient(everything.address) as client:
        for engine, models in everything.house.models.items():
            for model in models:
                await ask(client, engine, model)


Held = tuple[Holdings, int, int]


def _held(daemon: psutil.Process, everything: Open) -> Held:
    """The daemon's holdings, the processes below it, and what lies in its runtime folder."""
    living = sum(map(is_alive, daemon.children(recursive=True)))
    return Holdings.of(daemon), living, len(list((everything.folder / "run").iterdir()))


async def _settled(daemon: psutil.Process, everything: Open, wanted: Held | None = None) -> Held:
    """What is held once it is no more than wanted, or has stayed the same; at the latest after a while."""
    held, deadline = _held(daemon, everything), time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        await asyncio.sleep(LOOK_SECONDS if wanted else 5 * LOOK_SECONDS)
        before, held = held, _held(daemon, everything)
        if _figures(held) == _figures(wanted or before):
            break
    return held


def _figures(held: Held) -> tuple[int, int, int]:
    return held[0].descriptors, held[1], held[2]
