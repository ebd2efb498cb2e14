"""The folder for what a user's programs remember: logs and histories. The CLI and ``start`` ask here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """AUTOTUNE_STATE_DIR, else the platform's state folder of autotune. It may not exist yet."""
    if chosen := environment.get("AUTOTUNE_STATE_DIR"):
        return Path(chosen).absolute()
    from platformdirs import user_state_path  # noqa: PLC0415  # most commands need no state

    return user_state_path("autotune")
