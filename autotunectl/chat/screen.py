"""Shows a generation on the terminal as it comes: what it waits for, what it thinks, what it says.

Invariant: the answer goes to standard output and nothing else does, unless that is a terminal; a
status line is gone before anything else is written.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from autotunectl.json_output import enum_text
from autotunectl.output import Style, format_seconds, printable

if TYPE_CHECKING:
    from autotune.v1 import inference_service_pb2, model_pb2

_CLEAR_LINE = "\r\x1b[K"
_WAITING = "waiting for the first token…"
_WORTH_TELLING_SECONDS = 0.1
_PHASES = {"waiting": "waits after repeated crashes"}


class StatusLine:
    """One line on standard error that is replaced and vanishes; nothing where that is no terminal."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._shown = False

    def show(self, text: str) -> None:
        """Replaces the line."""
        if self._enabled:
            sys.stderr.write(_CLEAR_LINE + printable(text))
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Takes the line away."""
        if self._shown:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()
            self._shown = False


class Screen:
    """Shows one answer; ``end`` must be called however it ends."""

    def __init__(self, *, model: str, style: Style, status: StatusLine, is_terminal: bool) -> None:
        self._model = model
        self._style = style
        self._status = status
        self._is_terminal = is_terminal
        self._line_open = False
        self._thinks = False

    def begin(self) -> None:
        """The question is on its way. Engines that count late tell nothing before the answer begins."""
        self._status.show(_WAITING)

    def show(self, event: inference_service_pb2.GenerateResponse) -> None:
        """Takes the next event of the stream."""
        match event.WhichOneof("event"):
            case "queued":
                self._status.show(queued_text(event.queued, self._model))
            case "started":
                self._status.show(_WAITING)
            case "delta":
                self._show_delta(event.delta)

    def end(self) -> None:
        """Ends the last line."""
        self._status.clear()
        if self._line_open:
            self._write("\n")

    def _show_delta(self, delta: inference_service_pb2.Delta) -> None:
        self._status.clear()
        match delta.WhichOneof("content"):
            case "reasoning" if self._is_terminal:
                self._write(self._style.dim(printable(delta.reasoning)))
                self._thinks = True
            case "text":
                if self._thinks:
                    self._write("\n\n")
                    self._thinks = False
                self._write(printable(delta.text) if self._is_terminal else delta.text)

    def _write(self, text: str) -> None:
        if text:
            self._line_open = not text.endswith("\n")  # first: Ctrl-C may come in the middle of the write
            sys.stdout.write(text)
            sys.stdout.flush()


def queued_text(queued: inference_service_pb2.Queued, model: str) -> str:
    """What the request waits for."""
    if queued.HasField("load_progress"):
        return loading_text(queued.load_progress, model)
    if queued.position:
        return f"waiting, {queued.position:,} before you"
    return f"loading {model or 'the model'}…"


def loading_text(progress: model_pb2.LoadProgress, model: str) -> str:
    """How far a load has come."""
    phase = enum_text(progress, "phase")
    phase = _PHASES.get(phase, phase.replace("_", " "))
    elapsed = progress.elapsed_duration
    seconds = elapsed.seconds + elapsed.nanos / 1e9
    # Each phase tells the time once: a small number would stand there for all of a long one.
    so_far = f", {format_seconds(seconds)}" if seconds >= _WORTH_TELLING_SECONDS else ""
    return f"loading {model or 'the model'}… {phase}{so_far}"
