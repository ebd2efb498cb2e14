"""autotunectl recommend: which model suits this machine best."""

from __future__ import annotations

import click

from autotunectl.json_output import message_json
from autotunectl.options import verb
from autotunectl.recommendations import render
from autotunectl.session import Session

USE_CASES = ("chat", "coding", "reasoning", "agents")


@verb("recommend")
@click.option(
    "--for",
    "use_case",
    type=click.Choice(USE_CASES),
    default="chat",
    show_default=True,
    help="What the model is to be good at.",
)
def command(session: Session, use_case: str) -> None:
    """Say which model suits this machine best, and why.

    It weighs how well the models that could be downloaded did in tests against how fast they would be here.
    Sizes and memory are computed, speeds are estimates. The best comes first, then two others.
    """
    with session.connect() as client:
        response = client.recommend_models(use_case)
    if session.json:
        session.write_json({"use_case": use_case, **message_json(response)})
    else:
        session.write(render(response, use_case, session.out_style))
