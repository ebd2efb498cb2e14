"""Downloads a model within a conversation: what /pull does.

``repl`` gives it to the slash commands. Invariant: Ctrl-C, at the question too, leads back to the prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from autotune.errors import ModelTooLarge

from autotunectl.output import one_line
from autotunectl.pull_display import display_for
from autotunectl.pull_texts import here_text
from autotunectl.pulling import NOTHING_CAME, STOPPED, agrees_to_too_large, pull
from autotunectl.recommendations import choice_text, nothing_fits_text

if TYPE_CHECKING:
    from autotune.client import Client

    from autotunectl.session import Session


def pull_in_chat(session: Session, client: Client, name: str) -> str:
    """Downloads ``name`` with a status line; "" tells which ones suit. Returns what to print.

    Raises AutotuneError.
    """
    if not name:
        return _picks(client)
    display = display_for(session)
    try:
        pulled = pull(client, name, "", display, allow_too_large=False)
    except ModelTooLarge as error:
        if not _agrees(session, error, name):
            return f"{NOTHING_CAME}\n"
        pulled = pull(client, name, "", display, allow_too_large=True)
    if pulled is None:
        return f"{STOPPED} /pull {one_line(name)}\n"
    return f"{here_text(pulled)}; /model {one_line(pulled.model.id)} switches to it.\n"


def _picks(client: Client) -> str:
    response = client.recommend_models()
    if not response.recommendations:
        return nothing_fits_text(response)
    return f"{choice_text(response.recommendations)}/pull NAME downloads one of them.\n"


def _agrees(session: Session, error: ModelTooLarge, name: str) -> bool:
    try:
        return agrees_to_too_large(session, error, name)
    except click.Abort:
        return False
