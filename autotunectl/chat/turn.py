"""One question and its answer: streams it to the screen, and lets Ctrl-C stop the answer alone."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.chat import Reply, ReplyBuilder

from autotunectl.chat.screen import Screen, StatusLine

if TYPE_CHECKING:
    from autotune.client import Client
    from autotune.v1 import inference_service_pb2

    from autotunectl.session import Session


@dataclass(frozen=True, slots=True)
class Answer:
    """What came. ``interrupted``: the user stopped it, and its numbers are empty."""

    reply: Reply
    interrupted: bool


def answer(session: Session, client: Client, request: inference_service_pb2.GenerateRequest) -> Answer:
    """Asks and shows the answer; with ``--json`` shows nothing. Ctrl-C cancels the call and keeps what came.

    Raises AutotuneError.
    """
    builder = ReplyBuilder()
    screen = Screen(
        model=request.model,
        style=session.out_style,
        status=StatusLine(enabled=sys.stderr.isatty() and not session.json),
        is_terminal=sys.stdout.isatty(),
    )
    interrupted = False
    try:
        with closing(client.generate(request)) as events:
            for event in events:
                builder.add(event)
                if not session.json:
                    screen.show(event)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        screen.end()
    return Answer(builder.reply(), interrupted)
