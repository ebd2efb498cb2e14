"""What the server says while it downloads: how far it has come, and what an error means.

``pulling`` feeds it the lines of one pull. Invariant: a later layer makes the whole larger, and nothing that
the server says is taken for more bytes than the layer has.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from autotuned.core.download import DownloadPhase, DownloadProgress
from autotuned.core.errors import (
    AutotuneError,
    DownloadCorrupt,
    ModelNotFound,
    SourceDenied,
    SourceUnreachable,
    StorageFull,
    Unsupported,
)
from autotuned.engines.answers import UNREADABLE, count
from autotuned.engines.chat_events import UnreadableStream
from autotuned.engines.ollama.refusals import quoted

SUCCESS = "success"
_PHASES = (
    ("pulling manifest", DownloadPhase.RESOLVING),
    ("verifying", DownloadPhase.VERIFYING),
    ("writing manifest", DownloadPhase.FINISHING),
    ("removing", DownloadPhase.FINISHING),
    (SUCCESS, DownloadPhase.FINISHING),
)


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# What the server's words mean: the first that fits. A registry's own status comes with its answer, as in
# "403: {...}"; a 404 is "file does not exist".
_MEANINGS: tuple[tuple[re.Pattern[str], Callable[[str], AutotuneError], str], ...] = (
    (
        _words("newer version of ollama"),
        Unsupported,
        '"{name}" needs a newer version of Ollama than the one that runs; update Ollama.',
    ),
    (
        _words("requires MLX support"),
        Unsupported,
        '"{name}" is for MLX, which this Ollama lacks; choose a GGUF model, or pull it without Ollama.',
    ),
    (
        _words("no space left", "not enough space", "disk quota", "disk is full"),
        StorageFull,
        'Ollama has no room for "{name}" ({said}); free some on the disk of its models.',
    ),
    (
        _words("permission denied", "read-only file system"),
        StorageFull,
        'Ollama cannot store "{name}" ({said}); let its user write to the folder of its models.',
    ),
    (
        _words("digest mismatch", "unexpected digest", "size mismatch"),
        DownloadCorrupt,
        'What Ollama got of "{name}" is damaged ({said}); pull it again.',
    ),
    (
        _words("unauthorized", "access denied", "forbidden", "realm host", r"(?:^|: )40[13]\b"),
        SourceDenied,
        'The registry withholds "{name}" ({said}); sign in with "ollama signin", or choose another model.',
    ),
)
_MISSING = _words(
    "file does not exist",
    "invalid model name",
    r"manifest\b.*(?:not found|unknown)",
    r"repository .*(?:not found|unknown)",
    "not a valid quantization",
    "is not GGUF",
)


class _Line(msgspec.Struct):
    status: str = ""
    digest: str = ""
    total: int = 0
    completed: int = 0
    error: str = ""


class PullRefused(Exception):
    """The server says in the middle of its answer that it cannot."""


class PullReader:
    """The lines of one pull. ``fetched_bytes`` is by how much the layers grew while it was told of them."""

    def __init__(self) -> None:
        self.is_finished = False
        self.fetched_bytes = 0
        self._phase = DownloadPhase.RESOLVING
        # By layer: what it has in all, and what of it is here.
        self._layers: dict[str, tuple[int, int]] = {}

    @property
    def total_bytes(self) -> int:
        """Of the layers that were told of."""
        return sum(total for total, _ in self._layers.values())

    def feed(self, text: bytes) -> DownloadProgress:
        """How far it has come. Raises ``PullRefused`` with the server's words, and ``UnreadableStream``."""
        try:
            line = msgspec.json.decode(text, type=_Line)
        except UNREADABLE as error:
            raise UnreadableStream(str(error)) from error
        if line.error:
            raise PullRefused(line.error)
        if line.total > 0:
            self._note(line.digest or line.status, count(line.total), count(line.completed))
        self._phase = self._phase_of(line)
        self.is_finished = line.status == SUCCESS
        return DownloadProgress(
            phase=self._phase,
            done_bytes=sum(done for _, done in self._layers.values()),
            total_bytes=self.total_bytes,
        )

    def _note(self, layer: str, total: int, completed: int) -> None:
        done = min(completed, total)
        # What is there at the first word of a layer was there before, as far as anybody can tell.
        before = self._layers.get(layer, (total, done))[1]
        self.fetched_bytes += max(0, done - before)
        self._layers[layer] = total, done

    def _phase_of(self, line: _Line) -> DownloadPhase:
        if line.total > 0:
            return DownloadPhase.DOWNLOADING
        for beginning, phase in _PHASES:
            if line.status.startswith(beginning):
                return phase
        return self._phase


def pull_problem(words: str, name: str) -> AutotuneError:
    """The error that these words of the server's mean for a pull of this name."""
    said = quoted(words)
    for pattern, kind, text in _MEANINGS:
        if pattern.search(words):
            return kind(text.format(name=name, said=said))
    if _MISSING.search(words):
        return ModelNotFound.elsewhere(
            name, f'The registry that Ollama asked has no "{name}" ({said}); check the name.'
        )
    return SourceUnreachable(
        f'Ollama could not download "{name}" ({said}); check the connection and pull it again: '
        "what came is kept."
    )
