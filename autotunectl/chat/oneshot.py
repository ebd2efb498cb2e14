"""One question: the answer on standard output, its numbers on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from autotunectl import exits
from autotunectl.chat.numbers import numbers_text
from autotunectl.chat.turn import answer
from autotunectl.json_output import reply_json

if TYPE_CHECKING:
    from autotune.client import Client
    from autotune.v1 import inference_service_pb2

    from autotunectl.session import Session


def ask(
    session: Session,
    client: Client,
    request: inference_service_pb2.GenerateRequest,
    *,
    stats: bool | None,
) -> int:
    """Asks once; returns the exit status. ``stats``: None shows the numbers on a terminal alone."""
    result = answer(session, client, request)
    if result.interrupted:
        return exits.INTERRUPTED
    if session.json:
        session.write_json(reply_json(result.reply))
    elif stats or (stats is None and sys.stderr.isatty()):
        sys.stderr.write(session.error_style.dim(numbers_text(result.reply).rstrip("\n")) + "\n")
    return exits.DONE
