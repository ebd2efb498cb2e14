"""What tests make go wrong: each fault is for the next request that gets to its place, and for it alone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.lmstudio.problems import rest_problem

FAULTS = (
    "hang_before_headers",
    "hang_mid_stream",
    "close_mid_stream",
    "error_mid_stream",
    "text_error_mid_stream",
    "die_mid_stream",
    "hang_load",
    "fail_load",
)


class Cut(Exception):
    """Ends a connection in the middle of its answer."""


@dataclass(slots=True)
class Faults:
    """The faults that wait, and what lets go of requests that hang."""

    armed: list[str] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def arm(self, fault: str) -> None:
        """The next request that gets there has it."""
        self.released.clear()
        self.armed.append(fault)

    def release(self) -> None:
        """Whatever hangs goes on."""
        self.released.set()

    def _take(self, faults: Sequence[str]) -> str | None:
        for fault in faults:
            if fault in self.armed:
                self.armed.remove(fault)
                return fault
        return None

    async def before_headers(self) -> None:
        """A place before anything of an answer is sent."""
        if self._take(["hang_before_headers"]):
            await self.released.wait()

    async def at_load(self) -> None:
        """A place inside a load."""
        match self._take(["hang_load", "fail_load"]):
            case "hang_load":
                await self.released.wait()
            case "fail_load":
                raise rest_problem(500, "internal_error", "Failed to load model.")

    async def mid_stream(self) -> dict[str, Any] | None:
        """A place after the first pieces of a stream; returns an error to be sent as its last event."""
        match self._take([fault for fault in FAULTS if fault.endswith("_mid_stream")]):
            case "hang_mid_stream":
                await self.released.wait()
            case "close_mid_stream":
                raise Cut
            case "error_mid_stream":
                return {"error": {"message": "Error in predict stream"}}
            case "text_error_mid_stream":
                return {"error": "Error in predict stream"}
            case "die_mid_stream":
                die()
        return None


def die() -> None:
    """Ends this process at once, as a crash does."""
    os.kill(os.getpid(), signal.SIGKILL)


def sentence_of_crash(code: int | None) -> str:
    """What LM Studio says of an engine that is gone."""
    return f"The model has crashed without additional information. (Exit code: {code})"
