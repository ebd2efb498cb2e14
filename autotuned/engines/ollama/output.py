"""What ``ollama serve`` writes while it starts: on what it computes, and why it ends.

``server`` gives one to each process. Invariant: once it serves, nothing that it writes is kept but errors.
"""

from __future__ import annotations

import re

from autotuned.engines.output import Output

_COMPUTES = re.compile(r'msg="inference compute".*\blibrary=(?P<library>\w+)')


class OllamaOutput(Output):
    """The last lines of one server. ``accelerator`` is "" until it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.accelerator = ""

    def read(self, line: str) -> None:
        """Takes what computes from its line."""
        if match := _COMPUTES.search(line):
            self.accelerator = "CPU" if match["library"].lower() == "cpu" else match["library"]
