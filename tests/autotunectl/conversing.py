"""A conversation whose person types what a test says."""

from __future__ import annotations

from collections.abc import Iterable

from autotune.client import Client

from autotunectl.chat.conversation import Conversation
from autotunectl.chat.repl import Repl
from autotunectl.session import Session


def converse(daemon, entries: Iterable[str | type[BaseException]], **settings) -> Conversation:
    """Types ``entries``, then leaves."""
    conversation = Conversation(**settings)
    pending = iter(entries)

    def read() -> str:
        entry = next(pending, EOFError)
        if isinstance(entry, str):
            return entry
        raise entry

    with Client(daemon.address) as client:
        status = Repl(Session(), client, conversation, read=read, shows_numbers=False).run()
    assert status == 0
    return conversation
