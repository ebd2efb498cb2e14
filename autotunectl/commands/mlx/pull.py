"""autotunectl mlx pull: downloads the MLX version of a model."""

from __future__ import annotations

import click

from autotunectl.commands.mlx import ENGINE
from autotunectl.options import verb
from autotunectl.pulling import pull_and_tell
from autotunectl.session import Session


@verb("pull")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Download it even if it does not fit into this machine.")
def command(session: Session, name: str, yes: bool) -> int:
    """Download the MLX version of NAME.

    NAME is one such as qwen3:8b, whose repository is looked up ("autotunectl mlx resolve" shows which), or
    hf:publisher/repository. The same as "autotunectl pull NAME --engine mlx".
    """
    session.flags = {"model": "NAME"}
    with session.connect() as client:
        return pull_and_tell(session, client, name, ENGINE, yes=yes)
