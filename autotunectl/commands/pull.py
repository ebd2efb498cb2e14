"""autotunectl pull: downloads a model; without a name it proposes some and asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autotunectl import exits
from autotunectl.asking import chosen_number
from autotunectl.json_output import message_json
from autotunectl.options import engine_option, verb
from autotunectl.pulling import FLAGS, NOTHING_CAME, pull_and_tell
from autotunectl.session import Session

if TYPE_CHECKING:
    from autotune.client import Client


@verb("pull")
@click.argument("name", default=None)
@engine_option("Which engine is to run it; see autotunectl engines.")
@click.option("-y", "--yes", is_flag=True, help="Download it even if it does not fit into this machine.")
def command(session: Session, name: str | None, engine: str, yes: bool) -> int:
    """Download the model NAME.

    NAME is one such as qwen3:8b of Ollama's registry, hf:publisher/repository of Hugging Face, or an id of
    "autotunectl models --registry". Without NAME it shows which models suit this machine best for chat, and
    asks which one to download; "autotunectl recommend" has those for other uses.

    Ctrl-C stops the download; what came is kept, and the same command goes on. With --json each event is
    one line.
    """
    session.flags = FLAGS
    if name == "":
        raise click.UsageError("NAME is empty; name the model, or leave it out to see which ones suit")
    with session.connect() as client:
        if name is None:
            return _propose(session, client, engine, yes=yes)
        return pull_and_tell(session, client, name, engine, yes=yes)


def _propose(session: Session, client: Client, engine: str, *, yes: bool) -> int:
    """Shows what suits the machine, and downloads what the person picks of it.

    Raises UsageError where nobody is there to pick, once it is shown.
    """
    from autotunectl.recommendations import choice_text, nothing_fits_text

    response = client.recommend_models()
    choices = response.recommendations
    if session.json:
        session.write_json({"use_case": "chat", **message_json(response)})
    elif choices:
        session.write(choice_text(choices, session.out_style))
    else:
        session.write(nothing_fits_text(response))
    if not choices:
        return exits.REFUSED
    if not session.can_ask:
        raise click.UsageError("Nobody is there to choose; name one of them")
    number = chosen_number(len(choices))
    if not number:
        session.note(NOTHING_CAME)
        return exits.DONE
    return pull_and_tell(session, client, choices[number - 1].pull_name, engine, yes=yes)
