"""A click group whose commands are imported when they are run, so that each starts fast.

Invariant: ``--help`` of the group imports no command; a test holds its texts against theirs.
"""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

import click


class LazyGroup(click.Group):
    """``lazy``: for each command the one line that the group's help shows.

    A command called ``x`` is the object ``command`` of the module ``x`` in ``package``.
    """

    def __init__(
        self, *, lazy: dict[str, str], package: str = "autotunectl.commands", **attributes: object
    ) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]  # click's own keyword arguments, passed on
        self._lazy = lazy
        self._package = package

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The commands, in the order in which a new user needs them."""
        return list(self._lazy)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command."""
        if cmd_name not in self._lazy:
            return None
        command: click.Command = import_module(f"{self._package}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises UsageError with the nearest command for an unknown one."""
        name = args[0]
        if name not in self._lazy and not name.startswith("-"):
            near = difflib.get_close_matches(name, self._lazy, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f'"{ctx.command_path} --help" lists them.'
            raise click.UsageError(f'There is no command "{name}"; {hint}', ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Ctrl-C outside an answer: click would write an empty line even where no terminal shows a ^C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                sys.stderr.write("\n")
            raise click.Abort from None

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list without importing what is in it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lazy.items()))
