"""Computes what a conversation begins with while the person types, so that the first answer comes sooner.

``repl`` begins one when it opens and whenever a command has changed the beginning. Invariant: it never
keeps anybody waiting and says nothing: what is wrong comes out with the question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.errors import AutotuneError

from autotunectl.chat.turn import ctrl_c_calls

if TYPE_CHECKING:
    from autotune.client import Client
    from autotune.stream import BackgroundCall
    from autotune.v1.inference_service_pb2 import PrewarmRequest

    from autotunectl.chat.conversation import Conversation


class Prewarmer:
    """At most one prewarm, that of the newest beginning."""

    def __init__(self) -> None:
        self._call: BackgroundCall | None = None

    def begin(self, client: Client, conversation: Conversation) -> None:
        """Begins, and ends the one before. The daemon lets a question overtake it."""
        self.cancel()
        request = beginning_of(conversation)
        if request is not None:
            with ctrl_c_calls(_not_now):
                self._call = client.begin_prewarm(request)

    def cancel(self) -> None:
        """Ends it."""
        if self._call is not None:
            self._call.cancel()


def beginning_of(conversation: Conversation) -> PrewarmRequest | None:
    """What the next question comes after; None where that cannot be sent, which the question will say."""
    try:
        return conversation.beginning()
    except AutotuneError:
        return None


def _not_now() -> None:
    """Ctrl-C in the moment in which the call begins has nothing to stop."""
