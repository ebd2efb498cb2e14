"""Times on the command line."""

from __future__ import annotations

import click
import pytest

from autotunectl.memory_options import keep_alive_option, no_swap_of, swap_option


@click.command
@keep_alive_option
@swap_option
def command(keep_alive: float | None, swap: bool | None) -> tuple[float | None, bool | None]:
    return keep_alive, no_swap_of(swap)


def parsed(*arguments: str) -> tuple[float | None, bool | None]:
    result: tuple[float | None, bool | None] = command.main(list(arguments), standalone_mode=False)
    return result


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("90s", 90.0),
        ("1.5h", 5400.0),
        ("10m", 600.0),
        ("10 min", 600.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("-1", -1.0),
        ("-5m", -1.0),
    ],
)
def test_a_time_has_a_unit_or_is_seconds(text, seconds):
    assert parsed("--keep-alive", text) == (seconds, None)


@pytest.mark.parametrize("text", ["", "soon", "10 weeks", "1e3", "٣m", "10mm", "--1"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(click.BadParameter, match="is not a time; use one such as 90s"):
        parsed(f"--keep-alive={text}")


def test_swap_is_allowed_forbidden_or_not_said():
    assert parsed() == (None, None)
    assert parsed("--no-swap") == (None, True)
    assert parsed("--swap") == (None, False)
