"""What one plan costs: pure functions, in this process, for well-known models on a machine of 16 GiB."""

from __future__ import annotations

import time
from collections.abc import Callable

from autotuned.core.learning import Learned
from autotuned.core.memory import MemoryReading, MemoryView, PressureTier, Resident
from autotuned.core.model import ModelFacts
from autotuned.core.plan import LoadShape
from autotuned.policy.plan import Situation, plan, plan_optimistically, refit
from tests.bench.report import Row, median
from tests.examples import DEFAULTS, GEMMA3_12B, POCKET, QWEN3_8B, counted

ROUNDS = 300
BATCH = 10
GIB = 1 << 30


def measure() -> list[Row]:
    ample = MemoryView(reading=_reading(12 * GIB), pressure=PressureTier.NORMAL)
    residents = tuple(
        Resident(model_id=f"idle {number}", freed_bytes=GIB, is_busy=False, last_used_at=float(number))
        for number in range(8)
    )
    short = MemoryView(reading=_reading(2 * GIB), pressure=PressureTier.HIGH, residents=residents)
    rows = []
    for name, facts in (("pocket", POCKET), ("Qwen3 8B", QWEN3_8B), ("Gemma 3 12B", GEMMA3_12B)):
        first = plan(counted(22), _situation(facts, ample)).shape
        loaded = _situation(facts, ample, first)
        cases: dict[str, tuple[Callable[[], object], float | None]] = {
            "kept": (lambda loaded=loaded: plan_optimistically(counted(40), loaded), None),
            "loaded": (lambda facts=facts: plan(counted(22), _situation(facts, ample)), 100),
            "grown": (lambda loaded=loaded: plan(counted(6000), loaded), 100),
            "for a list": (lambda facts=facts: refit(_situation(facts, ample)), 100),
        }
        if facts is not POCKET:
            cases["loaded, short of memory"] = (lambda facts=facts: _tight(facts, short), 100)
        rows += [
            Row(f"{name}, {case}", 1e6 * _seconds(call), "us", target)
            for case, (call, target) in cases.items()
        ]
    return rows


def _tight(facts: ModelFacts, view: MemoryView) -> object:
    """A load that steps down the ladder and chooses who leaves."""
    return plan(counted(3000), _situation(facts, view))


def _situation(facts: ModelFacts, view: MemoryView, loaded: LoadShape | None = None) -> Situation:
    return Situation(facts=facts, learned=Learned(), defaults=DEFAULTS, memory=view, loaded=loaded)


def _reading(available_bytes: int) -> MemoryReading:
    return MemoryReading(
        total_bytes=16 * GIB, available_bytes=available_bytes, swap_total_bytes=0, swap_free_bytes=0
    )


def _seconds(call: Callable[[], object]) -> float:
    """The median over rounds of a few calls each: one call is too short for the clock."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(BATCH):
            call()
        taken.append((time.perf_counter() - started) / BATCH)
    return median(taken)
