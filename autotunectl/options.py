"""The options that every command has. They work before and after the verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from autotunectl.session import Session

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _WholeNumber(click.types.IntParamType):
    """What fits into a message; the daemon knows which of them make sense, so help tells no range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number = int(super().convert(value, param, ctx))
        if not -(1 << 63) <= number < 1 << 63:
            self.fail(f"{number} is too large.", param, ctx)
        return number


WHOLE_NUMBER = _WholeNumber()
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


def _set_address(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Session).address = value


def _set_json(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).json = True


def global_options(function: _Function) -> _Function:
    """Adds ``--address`` and ``--json`` to a command or group; they are stored in the session."""
    address = click.option(
        "--address",
        metavar="unix:/PATH",
        expose_value=False,
        is_eager=True,
        callback=_set_address,
        help="Where the daemon serves.",
    )
    as_json = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_json,
        help="Print JSON.",
    )
    return address(as_json(function))


def engine_option(text: str) -> Callable[[_Function], _Function]:
    """Adds ``--engine``; ``engine`` is "" where none is named. ``text`` is its help."""
    return click.option("--engine", default="", metavar="NAME", help=text)


class _Verb(click.Command):
    """Names itself where the command line is wrong; click forgets to where an option lacks its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


def verb(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Declares a command that gets the session first. It returns an exit status, or None for 0."""

    def declare(function: Callable[..., Any]) -> click.Command:
        passing: Callable[..., Any] = click.pass_obj(function)
        command = click.command(name, cls=_Verb, context_settings=CONTEXT_SETTINGS)(global_options(passing))
        command.params.sort(key=lambda parameter: parameter.name in {"address", "json"})  # its own first
        return command

    return declare
