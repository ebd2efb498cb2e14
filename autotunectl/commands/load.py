"""autotunectl load: brings a model into memory."""

from __future__ import annotations

import click
from autotune.requests import load_model_request

from autotunectl.loading import event_json, load_model, loaded_text
from autotunectl.options import verb
from autotunectl.session import Session


@verb("load")
@click.argument("model")
@click.option("--context", type=int, help="Tokens of context at least.")
def command(session: Session, model: str, context: int | None) -> None:
    """Load MODEL into memory, and show what was planned and why.

    A model that is in memory and large enough stays as it is. Ctrl-C does not stop the load. With --json
    each event is one line.
    """
    request = load_model_request(model, context)
    with session.connect() as client:
        if session.json:
            load_model(session, client, request, lambda event: session.write_json(event_json(event)))
        else:
            session.write(loaded_text(load_model(session, client, request)))
