"""autotunectl load: brings a model into memory."""

from __future__ import annotations

from typing import Any

import click
from autotune.requests import load_model_request

from autotunectl.json_output import event_json
from autotunectl.loading import load_model, loaded_text
from autotunectl.memory_options import keep_alive_option, no_swap_of, profile_option, swap_option
from autotunectl.options import WHOLE_NUMBER, engine_option, verb
from autotunectl.session import Session

FLAGS = {"context_tokens": "--context", "keep_alive_duration": "--keep-alive", "engine": "--engine"}


@verb("load")
@click.argument("model")
@click.option("--context", type=WHOLE_NUMBER, help="Tokens of context at least.")
@profile_option
@swap_option
@keep_alive_option
@engine_option("Which engine loads it; see autotunectl engines.")
def command(session: Session, model: str, context: int | None, **settings: Any) -> None:
    """Load MODEL into memory, and show what was planned and why.

    A model that is in memory and large enough stays as it is. Ctrl-C does not stop the load. With --json
    each event is one line.
    """
    session.flags = FLAGS
    request = load_model_request(
        model,
        context,
        profile=settings["profile"] or "",
        no_swap=no_swap_of(settings["swap"]),
        keep_alive_seconds=settings["keep_alive"],
        engine=settings["engine"],
    )
    with session.connect() as client:
        if session.json:
            load_model(session, client, request, lambda event: session.write_json(event_json(event)))
        else:
            session.write(loaded_text(load_model(session, client, request)))
