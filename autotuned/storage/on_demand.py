"""The registry of downloadable models for a daemon that is seldom asked: read with the first question.

``daemon`` makes one. Invariant: one reader for the life of the daemon, once there is one.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from autotuned.core.registry import Registry

if TYPE_CHECKING:
    from autotuned.storage.registry import TomlRegistryFile


class RegistryOnDemand:
    """``own_file`` is where the user's own models are looked for."""

    def __init__(self, own_file: Path) -> None:
        self._own_file = own_file

    @property
    def own_file(self) -> Path:
        """Where the user's own models are looked for."""
        return self._own_file

    async def read(self) -> Registry:
        """See ``TomlRegistryFile``."""
        return await self._reader.read()

    @cached_property
    def _reader(self) -> TomlRegistryFile:
        from autotuned.storage.registry import TomlRegistryFile  # noqa: PLC0415 - memory that most never need

        return TomlRegistryFile(self._own_file)
