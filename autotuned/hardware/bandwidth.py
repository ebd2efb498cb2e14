"""The measured bandwidth of memory, and the file that remembers it.

``hardware.reader`` asks at each reading. Invariant: a machine is measured once for good; one that was busy
then is measured once more when it is not, and the better figure stays. A file that cannot be read or written
costs a measurement, never an error.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autotuned.core.hardware import Bandwidth, BandwidthSource, Cpu

_VERSION = 1
_BUSY_SHARE = 0.5
"""Of the cores, by the load of the last minute: from here on other programs' reads are missed."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A measured figure, 0 for none; one that was taken while other programs read memory is too small."""

    bytes_per_second: int
    was_busy: bool


class MeasuredBandwidth:
    """Measures a machine once.

    ``measure`` returns bytes a second, 0 where it could not. ``load`` is how many processes wanted to run in
    the last minute.
    """

    def __init__(
        self,
        cache_file: Path,
        measure: Callable[[], int],
        load: Callable[[], float] | None = None,
    ) -> None:
        self._cache_file = cache_file
        self._measure = measure
        self._load = load or _load_of_last_minute
        self._known = _Known(0, was_busy=False)

    def read(self, cpu: Cpu, memory_bytes: int) -> Bandwidth:
        """The bandwidth of the machine with this processor and memory; measures it where it is not known."""
        identity = {"version": _VERSION, "cpu": cpu.model, "memory_bytes": memory_bytes}
        if not self._known.bytes_per_second:
            self._known = _remembered(self._cache_file, identity)
        is_busy = self._load() > _BUSY_SHARE * cpu.logical_cores_count
        if not self._known.bytes_per_second or (self._known.was_busy and not is_busy):
            self._known = _Known(max(self._known.bytes_per_second, self._measure()), is_busy)
            _remember(self._cache_file, {**identity, **asdict(self._known)})
        if not self._known.bytes_per_second:
            return Bandwidth()
        return Bandwidth(bytes_per_second=self._known.bytes_per_second, source=BandwidthSource.MEASURED)


def _load_of_last_minute() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:  # a container that hides it
        return 0.0


def _remembered(file: Path, identity: dict[str, Any]) -> _Known:
    """What the file says of this machine; nothing where it is of another, or is no such file."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    is_of_this = isinstance(content, dict) and all(content.get(key) == identity[key] for key in identity)
    rate = content.get("bytes_per_second") if is_of_this else None
    if not isinstance(rate, int) or rate <= 0:
        return _Known(0, was_busy=False)
    return _Known(rate, was_busy=content.get("was_busy") is True)


def _remember(file: Path, content: dict[str, Any]) -> None:
    """Writes the file in one step; where the folder cannot be written nothing is remembered."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(content) + "\n")
        draft.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
