"""autotunectl chat: one question, or a conversation."""

from __future__ import annotations

from typing import Any

import click

from autotunectl.chat.options import (
    FLAGS,
    conversation_of,
    conversation_options,
    converse,
    refuse_json_dialogue,
)
from autotunectl.chat.question import question_of
from autotunectl.options import verb
from autotunectl.session import Session


@verb("chat")
@click.argument("question", nargs=-1)
@click.option(
    "-m", "--model", default="", envvar="AUTOTUNE_MODEL", help="Which model answers; see autotunectl ls."
)
@conversation_options
def command(
    session: Session, question: tuple[str, ...], model: str, stats: bool | None, **settings: Any
) -> int:
    """Talk to a model.

    With a QUESTION, or with text on standard input, it answers once and ends. Text on standard input
    follows the question: git diff | autotunectl chat "Explain this change."

    Without, it is a conversation: Ctrl-C stops an answer, Ctrl-D leaves, /help lists the commands.
    """
    session.flags = FLAGS
    text = question_of(question)
    refuse_json_dialogue(session, text)
    with session.connect() as client:
        return converse(session, client, conversation_of(model, settings), question=text, stats=stats)
