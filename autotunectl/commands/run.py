"""autotunectl run: loads a model, shows the plan, and talks to it."""

from __future__ import annotations

from typing import Any

import click
from autotune.requests import load_model_request

from autotunectl.chat.options import conversation_of, conversation_options, converse, refuse_json_dialogue
from autotunectl.chat.question import question_of
from autotunectl.loading import load_model, loaded_text
from autotunectl.options import verb
from autotunectl.session import Session


@verb("run")
@click.argument("model")
@click.argument("question", nargs=-1)
@conversation_options
def command(
    session: Session, model: str, question: tuple[str, ...], stats: bool | None, **settings: Any
) -> int:
    """Load MODEL, show what was planned, and talk to it.

    With a QUESTION, or with text on standard input, it answers once and ends.
    """
    text = question_of(question)
    refuse_json_dialogue(session, text)
    conversation = conversation_of(model, **settings)
    with session.connect() as client:
        loaded = load_model(session, client, load_model_request(model, settings["context"]))
        session.note(loaded_text(loaded).rstrip("\n"))
        return converse(session, client, conversation, question=text, stats=stats)
