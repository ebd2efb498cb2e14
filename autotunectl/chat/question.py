"""Where a question comes from: the command line, standard input, or both.

Invariant: standard input is read only where it is no terminal, and never past what one message holds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import BinaryIO

import click
from autotune.errors import FieldInvalid, MessageTooLarge

_MAX_BYTES = 64 * 1024 * 1024


def question_of(words: Sequence[str]) -> str:
    """The whole question; "" when there is a terminal to ask at.

    Raises UsageError when neither place has a question, FieldInvalid for input that is no text.
    """
    asked = " ".join(words)
    if sys.stdin is None or sys.stdin.isatty():
        return asked
    piped = text_of(sys.stdin.buffer, "Standard input")
    question = "\n\n".join(part for part in (asked, piped.strip("\r\n")) if part.strip())
    if not question:
        raise click.UsageError("There is no question: standard input is empty")
    return question


def text_of(stream: BinaryIO, name: str) -> str:
    """All of ``stream``, which errors call ``name``. Raises FieldInvalid for what is no text."""
    data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise MessageTooLarge(f"{name} has more than 64 MiB; send less at once.")
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise FieldInvalid(
            f"{name} is not valid UTF-8 at byte {problem.start:,}; convert it, perhaps with iconv.",
            metadata={"field": name.lower(), "byte": str(problem.start)},
        ) from None
