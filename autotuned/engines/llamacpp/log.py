"""What a worker writes while it loads and serves, and what it tells of the load.

``readiness`` reads phase and report from it, ``engine`` the buffers, and error messages quote it.
Invariant: once it serves, nothing is kept but errors; a program whose verbosity cannot be lowered then
writes much with every request.
"""

from __future__ import annotations

import re

from autotuned.core.model import LoadPhase
from autotuned.engines.llamacpp.footprint import Buffers
from autotuned.engines.output import Output

# The phases in their order, each with the words that begin it.
_PHASES = (
    (LoadPhase.READING_WEIGHTS, "loading model"),
    (LoadPhase.ALLOCATING, "constructing llama_context"),
)
_LISTENING = "listening on "
# A line begins with the time since the start, a letter for its level, and the function that wrote it.
_PREFIX = re.compile(r"^(?:[\d.]+ )?(?P<level>[DIWE]) ")
_SPACES = re.compile(r"\s+")
_BARE_ERRORS = ("error: ", "error while handling argument", "GGML_ASSERT", "terminate called", "CUDA error")
_REPORTS = (
    re.compile(r"load_tensors: (?P<key>offloaded) (?P<value>\d+)/\d+ layers to GPU"),
    re.compile(r"load_tensors: loading .*\((?P<key>load_mode) = (?P<value>\w+)\)"),
    # The same in builds before there were modes.
    re.compile(r"load_tensors: loading .*\((?P<key>mmap) = (?P<value>\w+)\b"),
    re.compile(r"llama_context: (?P<key>n_batch|n_ubatch|flash_attn|kv_unified)\s*= (?P<value>\w+)"),
    re.compile(r"(?P<key>prompt cache) is (?P<value>disabled|enabled, size limit: \d+ MiB)"),
    re.compile(r"(?P<key>context checkpoints) (?P<value>disabled|enabled, max = \d+)"),
    re.compile(r"llama_kv_cache: size = .*\b(?P<key>K) \((?P<value>\w+)\)"),
    re.compile(r"llama_kv_cache: size = .*\b(?P<key>V) \((?P<value>\w+)\)"),
)


class WorkerLog(Output):
    """The last lines of one worker."""

    failures = _BARE_ERRORS

    def __init__(self) -> None:
        super().__init__()
        self.phase = LoadPhase.STARTING
        self.report: dict[str, str] = {}
        self.buffers = Buffers()

    def add(self, line: str) -> None:
        """Takes one line without its end."""
        if not self.is_serving or self.is_error(line):
            super().add(line)

    def read(self, line: str) -> None:
        """Phase, buffers and report of the load."""
        for phase, words in _PHASES:
            if words in line:
                self.phase = phase
        self.is_serving = _LISTENING in line
        self.buffers.add(line)
        for pattern in _REPORTS:
            if match := pattern.search(line):
                # Where layers differ, the first line is the one of the plain attention.
                self.report.setdefault(match["key"], match["value"])

    def is_error(self, line: str) -> bool:
        """A line of the level E, or one without a level that tells of a failure."""
        match = _PREFIX.match(line)
        return match["level"] == "E" if match else line.startswith(_BARE_ERRORS)

    def bare(self, line: str) -> str:
        """The line without time and level, and with single spaces."""
        return _SPACES.sub(" ", _PREFIX.sub("", line)).strip().rstrip(".")
