"""The root of autotunectl: its verbs and its own options. ``entry`` runs it."""

from __future__ import annotations

import click

from autotunectl.lazy import LazyGroup
from autotunectl.options import CONTEXT_SETTINGS, global_options

VERBS = {
    "chat": "Talk to a model.",
    "run": "Load MODEL, show what was planned, and talk to it.",
    "ls": "List the models that can be run.",
    "models": "List the models as ls does, or with --registry those to download.",
    "hardware": "Show the machine, what models may take of it, and what would fit.",
    "recommend": "Say which model suits this machine best, and why.",
    "pull": "Download the model NAME.",
    "rm": "Delete MODEL from the disk.",
    "mlx": "List, download and look up models for the engine MLX.",
    "ps": "List the models in memory.",
    "plan": "Show what a request to MODEL would lead to, and why.",
    "load": "Load MODEL into memory, and show what was planned and why.",
    "unload": "Take MODEL out of memory once its running requests have ended.",
    "engines": "List the engines that run models, and what each can do.",
    "doctor": "Say what is wrong, and what to do about it.",
    "status": "Show the daemon and the machine.",
    "forget": "Delete the saved KV prefixes of MODEL, or of every model.",
    "serve": "Serve the OpenAI API over HTTP until Ctrl-C.",
    "stop": "Stop the daemon.",
    "version": "Show the versions of client and daemon.",
}


def _print_version(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from autotune.version import __version__

        click.echo(f"autotunectl {__version__}")
        ctx.exit()


@click.group(
    name="autotunectl",
    cls=LazyGroup,
    lazy=VERBS,
    context_settings=CONTEXT_SETTINGS,
    invoke_without_command=True,
    epilog='"autotunectl COMMAND --help" explains a command. '
    "Exit status: 2 wrong usage, 3 no daemon, 4 no such model, 5 refused, 6 busy, 7 engine failed, 1 other. "
    'With --json, an error is {"error": ...} on standard error.',
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version of autotunectl.",
)
@global_options
@click.pass_context
def root(ctx: click.Context) -> None:
    """Talk to the language models of this machine, through the autotune daemon."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
