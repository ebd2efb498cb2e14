"""autotunectl ls: the models that can be run."""

from __future__ import annotations

import click

from autotunectl.model_list import show_models
from autotunectl.options import engine_option, verb
from autotunectl.session import Session


@verb("ls")
@engine_option("Only the models of this engine, as it would run them.")
@click.option("-v", "--verbose", is_flag=True, help="Also show other names, abilities and places of each.")
def command(session: Session, engine: str, verbose: bool) -> None:
    """List the models that can be run.

    CONTEXT is what the model was trained with, SAFE CONTEXT the most of it that memory has room for now,
    both in tokens. FIT says how a first message would fit; a model "elsewhere" takes no memory here. RUNS ON
    has the engines that can run it, first the one that would. The model with a * answers where none is named.
    """
    show_models(session, engine=engine, verbose=verbose)
