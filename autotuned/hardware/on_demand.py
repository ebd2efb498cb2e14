"""The hardware probe of a daemon that is seldom asked: what reads the machine comes with the first question.

``daemon`` makes one. Invariant: one reader for the life of the daemon, once there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from autotuned.core.hardware import Application, Hardware
from autotuned.core.ports import HardwareProbe

if TYPE_CHECKING:
    from autotuned.hardware.reader import HardwareReader


class HardwareOnDemand(HardwareProbe):
    """``cache_file`` remembers the bandwidth of the machine."""

    def __init__(self, cache_file: Path) -> None:
        self._cache_file = cache_file

    async def read(self) -> Hardware:
        """See ``HardwareReader``."""
        return await self._reader.read()

    async def applications(self) -> Sequence[Application]:
        """See ``HardwareReader``."""
        return await self._reader.applications()

    @cached_property
    def _reader(self) -> HardwareReader:
        from autotuned.hardware.reader import HardwareReader  # noqa: PLC0415 - memory that most never need

        return HardwareReader(self._cache_file)
