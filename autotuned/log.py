"""One line per event, for people and for grep.

    2026-11-23T21:00:00.123Z INFO services.models loaded model=pocket seconds=0.21

``__main__`` calls ``configure`` once. Everybody else writes

    _log = logging.getLogger(__name__)
    _log.info("loaded", extra=fields(model=model, seconds=seconds))

with a constant message and the values in fields, units in their names. Invariants: what users and
models write (prompts, answers, tool arguments) is never logged; no value can begin a line or steer
a terminal; a line that cannot be written is lost and disturbs nobody.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from autotuned.core.settings import DaemonSettings

FILE_MAX_BYTES = 10 * 1024 * 1024
FILES_KEPT = 3
"""Beside the current one, named log_file.1 (the latest) to log_file.3."""

_PACKAGE = "autotuned"
_FIELDS = "fields"
_CLOSED = -1
_NEEDS_QUOTES = re.compile(r'[\s"=]')

_log = logging.getLogger(__name__)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """The ``extra`` of a log call: values that follow the message as ``key=value``."""
    return {_FIELDS: values}


def configure(settings: DaemonSettings) -> None:
    """Sends the log to ``log_file``, or to standard error where it is empty or cannot be opened.

    The level is for our own lines. Libraries log warnings and worse: below that, some of them log
    what passes through them. May be called again; never raises.
    """
    handler: logging.Handler = StandardError()
    problem: Exception | None = None
    if settings.log_file:
        try:
            handler = LogFile(Path(settings.log_file).expanduser().absolute())
        except (OSError, RuntimeError, ValueError) as error:  # "~name" of nobody; a NUL
            problem = error
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, LogFile | StandardError)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_PACKAGE).setLevel(settings.log_level.upper())
    if problem:
        _log.warning("no log file, logging here", extra=fields(file=settings.log_file, problem=problem))


class LineFormatter(logging.Formatter):
    """Time (UTC), level, part, message, fields; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or several of which all but the first are indented."""
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        words = [
            f"{second}.{int(record.msecs):03d}Z",
            record.levelname,
            record.name.removeprefix(f"{_PACKAGE}."),
            _one_line(record.getMessage()),
        ]
        words += [f"{key}={_word(value)}" for key, value in getattr(record, _FIELDS, {}).items()]
        lines = [" ".join(words)]
        if record.exc_info:
            lines += [_one_line(each) for each in self.formatException(record.exc_info).splitlines()]
        return "\n    ".join(lines)


class Lossy(logging.Handler):
    """Drops what it cannot write: the disk is full, the reader has gone, the arguments do not fit."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """Says nothing, where the standard library would write a traceback to standard error."""


class StandardError(Lossy, logging.StreamHandler):  # type: ignore[type-arg] # generic in the stubs alone
    """Lines on standard error."""


class LogFile(Lossy):
    """Appends to a file, 0600, which moves aside when it has grown large.

    Each line is one ``write``: unlike the standard library's, this handler keeps nothing in a
    buffer and goes on after a full disk. Raises OSError when the file cannot be opened at first.
    """

    def __init__(self, path: Path, *, max_bytes: int = FILE_MAX_BYTES) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._descriptor = _CLOSED
        self._size_bytes = 0
        self._is_regular = False
        self._line_is_torn = False
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Appends the record; ``logging`` holds this handler's lock."""
        try:
            self._append(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # noqa: BLE001 - whoever logs has other work to do
            self.handleError(record)

    def close(self) -> None:
        """Closes the file."""
        self.acquire()
        try:
            self._close()
        finally:
            self.release()
        super().close()

    def _append(self, line: bytes) -> None:
        if self._is_regular and self._size_bytes and self._size_bytes + len(line) > self._max_bytes:
            self._rotate()
        if self._descriptor == _CLOSED:
            self._open()
        if self._line_is_torn:
            line = b"\n" + line
        written_bytes = os.write(self._descriptor, line)
        self._size_bytes += written_bytes
        self._line_is_torn = written_bytes < len(line)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        status = os.fstat(self._descriptor)
        self._size_bytes = status.st_size
        self._is_regular = stat.S_ISREG(status.st_mode)  # a device keeps its mode and its name
        if self._is_regular:
            os.fchmod(self._descriptor, 0o600)

    def _close(self) -> None:
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
        self._descriptor = _CLOSED

    def _rotate(self) -> None:
        """Every file takes the next number. Where that fails, the file grows on."""
        self._close()
        names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, FILES_KEPT + 1))]
        with suppress(OSError):
            for newer, older in reversed(list(pairwise(names))):
                if newer.exists():
                    newer.replace(older)


def _word(value: object) -> str:
    """A value as one word, in quotes where it would not be one."""
    text = f"{value:.6g}" if isinstance(value, float) else _one_line(str(value))
    if text and not _NEEDS_QUOTES.search(text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _one_line(text: str) -> str:
    """The text with everything escaped that is no printable character."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
