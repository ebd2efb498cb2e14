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

    "autotunectl ls --help" explains the list of ls. In that of models to download, which "autotunectl pull"
    takes by their names under MODEL, the PARAMETERS in brackets are those that compute one token, where that
    is not all of them; SIZE is the smallest download; SCORE goes from 0 to 100, over many tests. With
    --verbose each model has its other names, its context and layers, and where each figure comes from.
    """
    if not registry:
        from autotunectl.model_list import show_models

        show_models(session, engine=engine, verbose=verbose)
        return
    if engine:
        raise click.UsageError("--registry and --engine exclude each other")
    from autotunectl.registry_list import show_registry

    show_registry(session, verbose=verbose)
