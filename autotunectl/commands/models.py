"""autotunectl models: another name of ls, beside engines."""

from __future__ import annotations

import click

from autotunectl.commands import ls

command = click.Command(
    "models",
    context_settings=ls.command.context_settings,
    callback=ls.command.callback,
    params=ls.command.params,
    help=(ls.command.help or "").replace(".", ", as ls does.", 1),
)
