"""Engines of names, on servers that tests point them at."""

from __future__ import annotations

import time

from autotuned.core.ports import Clock
from autotuned.core.settings import OpenaiSettings
from autotuned.engines.openai.engine import OpenaiEngine, openai_engines

NAME = "lab"


class HandClock(Clock):
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class RealClock(Clock):
    """The real time."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def engine_of(
    *urls: str,
    words: str = "",
    environment: dict[str, str] | None = None,
    clock: Clock | None = None,
    silence_seconds: float = 10.0,
) -> OpenaiEngine:
    """An engine whose equals are at these URLs; ``words`` stand behind each in its entry."""
    settings = OpenaiSettings(
        upstreams=tuple(f"{NAME}={url} {words}".strip() for url in urls),
        silence_timeout_seconds=silence_seconds,
    )
    (engine,) = openai_engines(settings, environment=environment or {}, clock=clock or RealClock())
    return engine
