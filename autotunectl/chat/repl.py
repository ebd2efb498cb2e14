"""A conversation at the terminal: reads, asks, shows, until the person leaves.

Invariant: only Ctrl-D and /quit end it. Ctrl-C stops an answer, an error is one sentence, and a
daemon that has gone is started again with the next question.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from autotune.errors import AutotuneError, DaemonNotRunning

from autotunectl import exits
from autotunectl.chat.choice import choose
from autotunectl.chat.conversation import Conversation
from autotunectl.chat.numbers import numbers_line
from autotunectl.chat.prewarm import Prewarmer, beginning_of
from autotunectl.chat.slash import ReplState, Slash
from autotunectl.chat.turn import Answer, answer
from autotunectl.output import printable

if TYPE_CHECKING:
    from autotune.client import Client

    from autotunectl.session import Session


class Repl:
    """``read`` returns the next entry, or raises EOFError or KeyboardInterrupt as the person does."""

    def __init__(
        self,
        session: Session,
        client: Client,
        conversation: Conversation,
        *,
        read: Callable[[], str],
        shows_numbers: bool,
    ) -> None:
        self._session = session
        self._client = client
        self._own_clients = ExitStack()
        self._conversation = conversation
        self._read = read
        self._prewarmer = Prewarmer()
        self._state = ReplState(shows_numbers=shows_numbers)
        self._slash = Slash(
            conversation,
            self._state,
            lambda name: choose(self._client, name),
            self._pull,
        )

    def run(self) -> int:
        """Returns the exit status."""
        with self._own_clients:
            self._own_clients.callback(self._prewarmer.cancel)
            self._prewarmer.begin(self._client, self._conversation)
            while not self._state.leaves:
                try:
                    self._take(self._read())
                except KeyboardInterrupt:  # at the prompt, or in the moment between an answer and it
                    self._session.note("Ctrl-D or /quit leaves.")
                except EOFError:
                    break
        return exits.DONE

    def _take(self, entry: str) -> None:
        try:
            if entry.startswith("/") and not entry.startswith("//"):
                self._run(entry)
            elif entry.strip():
                self._ask(entry.removeprefix("/") if entry.startswith("//") else entry)
        except AutotuneError as error:
            self._session.note(self._session.error_style.red(printable(self._session.sentence_of(error))))

    def _run(self, entry: str) -> None:
        before = beginning_of(self._conversation)
        self._session.write(printable(self._slash.run(entry)))
        if beginning_of(self._conversation) != before:
            self._prewarmer.begin(self._client, self._conversation)

    def _pull(self, name: str) -> str:
        from autotunectl.chat.download import pull_in_chat

        return pull_in_chat(self._session, self._client, name)

    def _ask(self, question: str) -> None:
        request = self._conversation.request(question)
        try:
            result = answer(self._session, self._client, request)
        except DaemonNotRunning:
            self._client = self._own_clients.enter_context(self._session.connect())
            result = answer(self._session, self._client, request)
        if result.interrupted:
            self._keep_interrupted(question, result)
            return
        self._conversation.add(question, result.reply, whole=True)
        if self._state.shows_numbers:
            sys.stderr.write(self._session.error_style.dim(numbers_line(result.reply)) + "\n")

    def _keep_interrupted(self, question: str, result: Answer) -> None:
        if not result.reply.text:
            self._session.note("Stopped before the answer began; the question is forgotten.")
            return
        self._conversation.add(question, result.reply, whole=False)
        self._session.note("Stopped; what came is kept.")
