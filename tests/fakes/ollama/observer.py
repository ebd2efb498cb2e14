"""What the double counts, and how it is told to misbehave; tests read and set it at ``/_double``."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fakes.ollama.loaded import Wanted

_KEPT_REQUESTS = 64


@dataclass(slots=True)
class Fault:
    """One way to fail, for the next ``times`` requests to ``path``.

    ``kind``: hang, close, error. ``after`` counts the lines that are sent before it; None is before
    the headers.
    """

    kind: str
    after: int | None
    times: int
    path: str | None
    message: str
    status: int

    def fits(self, path: str) -> bool:
        return self.times > 0 and self.path in {None, path}


@dataclass(slots=True)
class Faults:
    """What goes wrong next, and how slow everything is."""

    reload_seconds: float
    header_seconds: float = 0.0
    line_seconds: float = 0.0
    planned: list[Fault] = field(default_factory=list)
    # Set when a test lets go of what hangs.
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, path: str) -> Fault | None:
        """The fault of this request, if it has one."""
        for fault in self.planned:
            if fault.fits(path):
                fault.times -= 1
                return fault
        return None

    def clear(self) -> None:
        self.planned.clear()
        self.header_seconds = self.line_seconds = 0.0
        self.released.set()
        self.released = asyncio.Event()


class Observer:
    """The counters of one server."""

    def __init__(self, *, reload_seconds: float) -> None:
        self.faults = Faults(reload_seconds)
        self.loads = 0
        self.reloads = 0
        self.unloads = 0
        self.cancelled = 0
        self.active: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.bodies: deque[dict[str, Any]] = deque(maxlen=_KEPT_REQUESTS)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.log("WARN", message)

    def log(self, level: str, message: str) -> None:
        sys.stderr.write(f'level={level} source=double msg="{message}"\n')
        sys.stderr.flush()

    def loading(self, wanted: Wanted, *, replaced: bool) -> None:
        """Every load counts; one that took the place of the same model's runner is a reload, too."""
        self.loads += 1
        self.reloads += replaced
        self.log("INFO", f"starting runner model={wanted.model.name.shortest} {wanted.options.runner}")

    def unloaded(self, key: str) -> None:
        self.unloads += 1
        self.log("INFO", f"runner terminated model={key}")

    def page(self) -> dict[str, Any]:
        return {
            "loads": self.loads,
            "reloads": self.reloads,
            "unloads": self.unloads,
            "cancelled": self.cancelled,
            "active_requests": sum(self.active.values()),
            "requests": dict(self.requests),
            "warnings": self.warnings,
            "bodies": list(self.bodies),
        }
