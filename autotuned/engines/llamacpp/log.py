"""What a worker writes while it loads and serves, and what it tells of the load.

``process`` adds every line; ``readiness`` reads phase and report from it, ``engine`` the buffers, and
error messages quote it.
Invariant: it holds a bounded number of lines of bounded length, however much the worker writes.
"""

from __future__ import annotations

import re
from collections import deque

from autotuned.core.model import LoadPhase
from autotuned.engines.llamacpp.footprint import Buffers

KEPT_LINES = 40
LONGEST_LINE = 500

# The phases in their order, each with the words that begin it.
_PHASES = (
    (LoadPhase.READING_WEIGHTS, "loading model"),
    (LoadPhase.ALLOCATING, "constructing llama_context"),
)
_LISTENING = "listening on "
# A line begins with the time since the start, a letter for its level, and the function that wrote it.
_PREFIX = re.compile(r"^(?:[\d.]+ )?(?P<level>[DIWE]) ")
_SPACES = re.compile(r"\s+")
_BARE_ERRORS = ("error: ", "GGML_ASSERT", "terminate called", "CUDA error")
_REPORTS = (
    re.compile(r"load_tensors: (?P<key>offloaded) (?P<value>\d+)/\d+ layers to GPU"),
    re.compile(r"load_tensors: loading .*\((?P<key>load_mode) = (?P<value>\w+)\)"),
    re.compile(r"llama_context: (?P<key>n_batch|n_ubatch|flash_attn|kv_unified)\s*= (?P<value>\w+)"),
    re.compile(r"(?P<key>prompt cache) is (?P<value>disabled|enabled, size limit: \d+ MiB)"),
    re.compile(r"(?P<key>context checkpoints) (?P<value>disabled|enabled, max = \d+)"),
    re.compile(r"llama_kv_cache: size = .*\b(?P<key>K) \((?P<value>\w+)\)"),
    re.compile(r"llama_kv_cache: size = .*\b(?P<key>V) \((?P<value>\w+)\)"),
)


class WorkerLog:
    """The last lines of one worker."""

    def __init__(self) -> None:
        self.phase = LoadPhase.STARTING
        self.is_listening = False
        self.first_error = ""
        self.bytes_count = 0
        self.report: dict[str, str] = {}
        self.buffers = Buffers()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._lines)

    @property
    def last_words(self) -> str:
        """What a failing check or allocation wrote on its way out; never what a request contained."""
        return next((line for line in reversed(self._lines) if line.startswith(_BARE_ERRORS)), "")

    def add(self, line: str) -> None:
        """Takes one line without its end."""
        line = line[:LONGEST_LINE].rstrip()
        if not line:
            return
        self._lines.append(line)
        if not self.first_error and _is_error(line):
            self.first_error = _bare(line)
        if self.is_listening:
            return
        for phase, words in _PHASES:
            if words in line:
                self.phase = phase
        self.is_listening = _LISTENING in line
        self.buffers.add(line)
        for pattern in _REPORTS:
            if match := pattern.search(line):
                # Where layers differ, the first line is the one of the plain attention.
                self.report.setdefault(match["key"], match["value"])


def _is_error(line: str) -> bool:
    match = _PREFIX.match(line)
    return match["level"] == "E" if match else line.startswith(_BARE_ERRORS)


def _bare(line: str) -> str:
    """The line without time and level, and with single spaces."""
    return _SPACES.sub(" ", _PREFIX.sub("", line)).strip().rstrip(".")
