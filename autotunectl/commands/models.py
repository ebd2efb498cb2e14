"""autotunectl models: another name of ls, beside engines; with --registry the models to download."""

from __future__ import annotations

import click

from autotunectl.options import engine_option, verb
from autotunectl.session import Session


@verb("models")
@click.option("--registry", is_flag=True, help="The models that there are to download, instead.")
@engine_option("Only the models of this engine, as it would run them.")
@click.option("-v", "--verbose", is_flag=True, help="Also show other names, abilities and places of each.")
def command(session: Session, registry: bool, engine: str, verbose: bool) -> None:
    """List the models as ls does, or with --registry those to download.

    "autotunectl ls --help" explains the list. Of a model to download, PARAMETERS has in brackets those that
    compute one token, where they are not all; SIZE is its smallest download; SCORE, 0 to 100, is over many
    tests. "autotunectl pull" takes MODEL. With --verbose the list has each model's names where it comes from,
    which a pull takes, too, its context and layers, and what the figures come from.
    """
    if not registry:
        from autotunectl.model_list import show_models

        show_models(session, engine=engine, verbose=verbose)
        return
    if engine:
        raise click.UsageError("--registry and --engine exclude each other")
    from autotunectl.registry_list import show_registry

    show_registry(session, verbose=verbose)
