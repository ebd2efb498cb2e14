"""The options about memory that several commands have."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

PROFILES = ("fast", "balanced", "quality")
FOR_EVER_SECONDS = -1.0

_TIME = re.compile(r"(?P<number>-?\d+(?:\.\d+)?)\s*(?P<unit>s|m|min|h|d)?", re.ASCII)
_UNIT_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def swap_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--no-swap``; ``swap`` is None where the daemon's own policy holds."""
    return click.option(
        "--swap/--no-swap",
        default=None,
        help="Whether a load may push memory to disk; --no-swap refuses instead.",
    )(function)


def keep_alive_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--keep-alive``; ``keep_alive`` is seconds, None where the daemon's own time holds."""
    return click.option(
        "--keep-alive",
        metavar="TIME",
        callback=_seconds,
        help="How long the model stays in memory after its last use, such as 10m; -1 until it is needed.",
    )(function)


def profile_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--profile``."""
    return click.option(
        "-p",
        "--profile",
        type=click.Choice(PROFILES),
        envvar="AUTOTUNE_PROFILE",
        help="Which defaults answers take.",
    )(function)


def no_swap_of(swap: bool | None) -> bool | None:
    """The library's word for ``--swap/--no-swap``."""
    return None if swap is None else not swap


def _seconds(_ctx: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    match = _TIME.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(
            f'"{value}" is not a time; use one such as 90s, 10m, 2h or 1d, or -1 for ever.'
        )
    seconds = float(match["number"]) * _UNIT_SECONDS[match["unit"]]
    return FOR_EVER_SECONDS if seconds < 0 else seconds
