"""Shows a download as it goes: a bar at a terminal, a line for each phase elsewhere, JSON for programs.

``pulling`` drives one of them. Invariant: the bar is gone before anything else is written, and rich is
imported where a bar is drawn, nowhere else.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol

from autotunectl.json_output import event_json
from autotunectl.output import WIDTH_COLUMNS
from autotunectl.pull_texts import (
    is_new_step,
    numbers_text,
    offer_text,
    phase_line,
    phase_text,
    share_line,
    share_percent,
)

if TYPE_CHECKING:
    from autotune.v1 import model_service_pb2
    from rich.progress import Progress

    from autotunectl.session import Session


class PullDisplay(Protocol):
    """Shows the events of one download; ``end`` must be called however it ends, and may be called twice."""

    def show(self, event: model_service_pb2.PullModelResponse) -> None:
        """Takes the next event."""

    def end(self) -> None:
        """Takes away what must not stay."""


def display_for(session: Session) -> PullDisplay:
    """What suits the session's streams."""
    if session.json:
        return JsonLines(session)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Bar(session)
    return PhaseLines(session)


class JsonLines:
    """Each event as a line of JSON."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def show(self, event: model_service_pb2.PullModelResponse) -> None:
        """Writes it."""
        self._session.write_json(event_json(event))

    def end(self) -> None:
        """Nothing is left."""


class PhaseLines:
    """What is offered, then a line whenever something else is under way or another tenth is here."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._offered = False
        self._phase = ""
        self._tenths = 0

    def show(self, event: model_service_pb2.PullModelResponse) -> None:
        """Writes a line where there is something new."""
        if event.HasField("offer"):
            self._offered = True
            self._session.note(offer_text(event.offer))
        elif event.HasField("progress"):
            self._show_progress(event.progress)

    def _show_progress(self, progress: model_service_pb2.PullProgress) -> None:
        phase, tenths = phase_text(progress), share_percent(progress) // 10
        if phase == self._phase and tenths > self._tenths:
            self._session.note(share_line(progress))
        elif phase != self._phase and is_new_step(progress, offered=self._offered):
            self._session.note(phase_line(progress))
        else:
            return
        self._phase, self._tenths = phase, tenths

    def end(self) -> None:
        """Nothing is left."""


class Bar:
    """A bar with bytes, rate and time left."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._progress: Progress | None = None

    def show(self, event: model_service_pb2.PullModelResponse) -> None:
        """Draws the bar anew; what is offered stays above it."""
        if event.HasField("offer"):
            self.end()
            self._session.note(offer_text(event.offer))
        elif event.HasField("progress"):
            self._draw(event.progress)

    def end(self) -> None:
        """Takes the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _draw(self, progress: model_service_pb2.PullProgress) -> None:
        bar = self._progress or _new_bar()
        bar.console.width = _bar_columns()
        if self._progress is None:
            self._progress = bar
            bar.start()
        (task,) = bar.task_ids or (bar.add_task("", total=None, numbers=""),)
        bar.update(
            task,
            description=phase_text(progress),
            completed=progress.done_bytes,
            total=progress.total_bytes or None,
            numbers=numbers_text(progress),
            refresh=True,
        )


def _bar_columns() -> int:
    """How wide it may be now: the "^C" that a terminal adds stays in its line, and goes with it."""
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or WIDTH_COLUMNS
    return max(1, columns - len("^C") - 1)


def _new_bar() -> Progress:
    """A line of phase, bar and numbers, which is drawn when it is told to and vanishes in the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    return Progress(
        # The phase gives way where the line is too narrow: why it waits may be long.
        TextColumn(
            "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
        ),
        BarColumn(
            bar_width=None,
            # The usual colours are those of an error.
            complete_style="green",
            pulse_style="green",
            table_column=Column(ratio=1, min_width=10),
        ),
        TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=True)),
        console=Console(stderr=True, highlight=False),
        auto_refresh=False,
        transient=True,
        expand=True,
    )
