"""The line editor of a conversation: history that outlives it, completion, pastes of many lines.

``repl`` reads from it. Invariant: a history that cannot be written never disturbs the conversation.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output
from prompt_toolkit.shortcuts import CompleteStyle

from autotunectl.chat.slash import COMMANDS

_HISTORY_MAX_BYTES = 4 * 1024 * 1024


class PrivateHistory(FileHistory):
    """What was typed, in a file that its owner alone may read."""

    def load_history_strings(self) -> Iterable[str]:
        """The newest first; nothing from a file that cannot be read."""
        with contextlib.suppress(OSError):
            return list(super().load_history_strings())
        return []

    def store_string(self, string: str) -> None:
        """Appends; a full disk or a character that is none costs the entry alone."""
        with contextlib.suppress(OSError, UnicodeEncodeError):
            super().store_string(string)


def open_history(folder: Path | None) -> History:
    """The history in ``folder``, or one in memory where no file can or should be kept (None)."""
    if folder is None:
        return InMemoryHistory()
    path = folder / "chat_history"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _HISTORY_MAX_BYTES:
            path.replace(path.with_suffix(".1"))
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        path.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return PrivateHistory(path)


class SlashCompleter(Completer):
    """Completes the names of slash commands."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """The commands that begin as the line does."""
        del complete_event
        typed = document.text_before_cursor
        if typed.startswith("/"):
            for name, (_, text) in COMMANDS.items():
                if name.startswith(typed):
                    yield Completion(name, start_position=-len(typed), display_meta=text)


def key_bindings() -> KeyBindings:
    """Alt-Enter begins a new line, Ctrl-C gives the entry up."""
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    # The ones that come by default raise when Ctrl-C is pressed again before the prompt has gone.
    @bindings.add("c-c")
    @bindings.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if event.app.future is not None and not event.app.future.done():
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return bindings


class Prompt:
    """Reads lines at the terminal. ``history_folder`` None keeps nothing of what is typed."""

    def __init__(self, history_folder: Path | None) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=open_history(history_folder),
            completer=SlashCompleter(),
            # Tab completes as in a shell; a menu would keep eight lines of the screen empty for itself.
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,
            key_bindings=key_bindings(),
            enable_suspend=True,
            # Standard output may be a file while the person sits at a terminal.
            output=create_output(always_prefer_tty=True),
        )

    def read(self) -> str:
        """The next entry. Raises EOFError for Ctrl-D, and KeyboardInterrupt for Ctrl-C on an empty line."""
        while True:
            try:
                return self._session.prompt("> ")
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    raise
