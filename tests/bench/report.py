"""A measured row, the table of them, and the JSON file. Every row says its target, met or not."""

from __future__ import annotations

import datetime as dt
import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

OUTPUT = Path("build/bench")


@dataclass(frozen=True)
class Row:
    """``target`` is the largest allowed value, or the smallest with ``at_least``; None has no target."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        met = self.value >= self.target if self.at_least else self.value < self.target
        return "met" if met else "MISSED"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def machine() -> dict[str, object]:
    """What the figures were measured on, without names of hosts or people."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _figure(value: float) -> str:
    """Three digits that matter, or four before the point."""
    if value >= 10_000:
        return f"{round(value, -2):,.0f}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def show(title: str, rows: Sequence[Row]) -> None:
    print(f"\n{title}\n")
    print("| measured | value | target | |")
    print("|---|---:|---:|---|")
    for row in rows:
        sign = ">=" if row.at_least else "<"
        target = "" if row.target is None else f"{sign} {row.target:,g} {row.unit}"
        print(f"| {row.name} | {_figure(row.value)} {row.unit} | {target} | {row.verdict} |")


def save(sections: dict[str, Sequence[Row]]) -> Path:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / "latest.json"
    content = {
        "machine": machine(),
        "sections": {
            title: [{**asdict(row), "verdict": row.verdict} for row in rows]
            for title, rows in sections.items()
        },
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
