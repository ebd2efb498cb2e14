"""Looking at processes and descriptors from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = 20.0) -> None:
    """Returns when the condition holds; fails when it does not within the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.005)


def is_alive(process_id: int) -> bool:
    """Whether a process still has memory; one that only waits to be collected has not."""
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants() -> set[int]:
    """Living processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True) if is_alive(child.pid)}


def descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for descriptor in Path("/dev/fd").iterdir():
        try:
            found.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
        except OSError:  # only Linux says what a descriptor leads to
            found.append(descriptor.name)
    return sorted(found)
