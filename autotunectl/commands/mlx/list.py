"""autotunectl mlx list: the models that MLX can run."""

from __future__ import annotations

import click

from autotunectl.commands.mlx import ENGINE
from autotunectl.model_list import show_models
from autotunectl.options import verb
from autotunectl.session import Session


@verb("list")
@click.option("-v", "--verbose", is_flag=True, help="Also show other names, abilities and places of each.")
def command(session: Session, verbose: bool) -> None:
    """List the models that MLX can run.

    The same as "autotunectl ls --engine mlx", whose help explains the columns.
    """
    show_models(session, engine=ENGINE, verbose=verbose)
