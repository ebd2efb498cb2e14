"""Room on the disk that a download goes to. The sources use it; it never creates anything."""

from __future__ import annotations

import shutil
from pathlib import Path

from autotuned.engines.downloads.protocol import DownloadFailure


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
            f"The download needs {missing_bytes:,} bytes and leaves {margin_bytes:,} free, which is "
            f"{required:,}; the disk of {folder} has {free:,}; free {required - free:,} bytes, pull again.",
        )
