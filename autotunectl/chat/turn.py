"""One question and its answer: streams it to the screen, and lets Ctrl-C stop the answer alone.

Invariant: while a call begins, Ctrl-C raises nothing. An exception out of nowhere inside gRPC can leave
a call behind that nobody ends, and closing the channel waits for it for ever.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.chat import Reply, ReplyBuilder

from autotunectl.chat.screen import Screen, StatusLine

if TYPE_CHECKING:
    from autotune.client import Client
    from autotune.v1 import inference_service_pb2

    from autotunectl.session import Session


PATIENCE_SECONDS = 0.5


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
    with closing(client.generate(request)) as events:

        def stop() -> None:
            nonlocal interrupted
            interrupted = True
            events.close()

        try:
            if not session.json:
                screen.begin()
            with ctrl_c_calls(stop):
                for event in events:
                    builder.add(event)
                    if not session.json:
                        screen.show(event)
        finally:
            screen.end()
    return Answer(builder.reply(), interrupted)


@contextmanager
def ctrl_c_calls(stop: Callable[[], None]) -> Iterator[None]:
    """Until the end of the block Ctrl-C calls ``stop``; after a while in vain it raises KeyboardInterrupt."""
    vain_at = math.inf

    def handle(_number: int, _frame: object) -> None:
        nonlocal vain_at
        if time.monotonic() > vain_at:  # perhaps nobody reads what is written
            raise KeyboardInterrupt
        vain_at = min(vain_at, time.monotonic() + PATIENCE_SECONDS)
        stop()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
