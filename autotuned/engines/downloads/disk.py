"""Room on the disk that a download goes to. The worker and the sources use it; it never creates anything."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from autotuned.engines.downloads.protocol import DownloadFailure

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk, or the share of it that a user has, says once it is full."""


def free_bytes(folder: Path) -> int:
    """The room of the disk that a folder is on, or will be on once it is there."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def require_room(folder: Path, missing_bytes: int, margin_bytes: int) -> None:
    """Raises ``DownloadFailure`` where what is missing would leave less room than the margin."""
    free = free_bytes(folder)
    required = missing_bytes + margin_bytes
    if missing_bytes and free < required:
        raise DownloadFailure(
            "STORAGE_FULL",
            f"The download needs {_gib(missing_bytes)} and {_gib(margin_bytes)} have to stay free, but the "
            f"disk of {folder} has {_gib(free)}; free {_gib(required - free)} and pull again.",
        )


def _gib(size_bytes: int) -> str:
    """In a unit that people compare with what other programs tell."""
    if size_bytes < 1 << 30:
        return f"{size_bytes / (1 << 20):,.1f} MiB"
    return f"{size_bytes / (1 << 30):,.1f} GiB"
