"""What a worker writes while it loads, and the report that it ends its load with.

``loading`` reads phase and report from it, and error messages quote it.
Invariant: nothing is read of what it writes once it serves.
"""

from __future__ import annotations

import contextlib

import msgspec

from autotuned.core.model import LoadPhase
from autotuned.engines.mlx.protocol import LoadReport
from autotuned.engines.output import Output

_PHASE, _SERVING = "phase ", "serving "


class WorkerLog(Output):
    """The last lines of one worker. ``report`` is None until it serves."""

    failures = (*Output.failures, "libc++abi: ")

    def __init__(self) -> None:
        super().__init__()
        self.phase = LoadPhase.STARTING
        self.report: LoadReport | None = None

    def read(self, line: str) -> None:
        """Phase and report of the load."""
        if line.startswith(_PHASE):
            with contextlib.suppress(ValueError):
                self.phase = LoadPhase(line.removeprefix(_PHASE))
        elif line.startswith(_SERVING):
            self.report = msgspec.json.decode(line.removeprefix(_SERVING), type=LoadReport)
            self.is_serving = True
