"""autotunectl mlx: models for the engine MLX. Its verbs are the modules of this package."""

from __future__ import annotations

import click

from autotunectl.lazy import LazyGroup
from autotunectl.options import CONTEXT_SETTINGS, global_options

ENGINE = "mlx"
VERBS = {
    "list": "List the models that MLX can run.",
    "pull": "Download the MLX version of NAME.",
    "resolve": "Show which MLX repositories NAME stands for.",
}


@click.group(
    name="mlx",
    cls=LazyGroup,
    lazy=VERBS,
    package="autotunectl.commands.mlx",
    context_settings=CONTEXT_SETTINGS,
    invoke_without_command=True,
    epilog='"autotunectl mlx COMMAND --help" explains a command.',
)
@global_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, download and look up models for the engine MLX."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
