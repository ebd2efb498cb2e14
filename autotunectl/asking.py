"""Asks the person at the terminal. ``pull``, ``rm``, ``forget`` and the chat's /pull do.

Invariant: a question that Ctrl-C or Ctrl-D leaves open ends its line, so that whatever comes next begins one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from autotunectl.output import one_line


def agrees(question: str) -> bool:
    """Asks for a yes; Enter alone is no. Raises Abort at Ctrl-C and at Ctrl-D."""
    with _whole_lines():
        return click.confirm(question, err=True)


def chosen_number(count: int) -> int:
    """Asks for one of so many; 0 is none of them. Raises Abort at Ctrl-C and at Ctrl-D."""
    what = f"1 to {count}" if count > 1 else "1"
    question = f"Which one? {what}, Enter for none"
    while True:
        with _whole_lines():
            text: str = click.prompt(question, default="0", show_default=False, err=True)
        if text.isdecimal() and int(text) <= count:
            return int(text)
        sys.stderr.write(f"{one_line(text)} is not a number of the list.\n")


@contextmanager
def _whole_lines() -> Iterator[None]:
    try:
        yield
    except click.Abort:
        sys.stderr.write("\n")
        sys.stderr.flush()
        raise
