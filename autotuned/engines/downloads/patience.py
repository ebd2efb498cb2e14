"""How long a source that fails is tried again: with growing pauses, for as long as bytes come now and then.

``files`` and ``registry`` use it in the worker. Invariant: it gives up when ``seconds`` passed without
progress.
"""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime

from autotuned.engines.downloads.protocol import DownloadFailure

FIRST_PAUSE_SECONDS = 0.1
ASKING_SECONDS = 4.0
LONGEST_PAUSE_SECONDS = 15.0


class Interrupted(Exception):
    """It failed, and may work in a moment. ``clause`` says how; ``wish_seconds`` is the source's own wish."""

    def __init__(self, clause: str, wish_seconds: float = 0.0) -> None:
        super().__init__(clause)
        self.clause = clause
        self.wish_seconds = wish_seconds


class Patience:
    """For one download. ``host`` is who is waited for."""

    def __init__(self, seconds: float, host: str) -> None:
        self._seconds = seconds
        self._host = host
        self._given_up = f"did not send anything new for {seconds:g} seconds"
        self._advice = "what came is kept, pull again to go on"
        self.progress()

    @classmethod
    def while_asking(cls, seconds: float, host: str) -> Patience:
        """For the question what there is: nobody sees yet that it waits, so it does not wait long."""
        patience = cls(min(seconds, ASKING_SECONDS), host)
        patience._given_up = "cannot be asked"
        patience._advice = "check the connection and pull again"
        return patience

    def progress(self) -> None:
        """Bytes came that were not here before."""
        self._until = time.monotonic() + self._seconds
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def pause(self, interrupted: Interrupted) -> float:
        """Seconds to wait before the next try. Raises ``DownloadFailure`` once it was tried long enough."""
        left_seconds = self._until - time.monotonic()
        wish_seconds = interrupted.wish_seconds
        if wish_seconds > max(left_seconds, 0.0):
            raise DownloadFailure(
                "SOURCE_UNREACHABLE",
                f"{self._host} asks to wait for {wish_seconds:,.0f} s: {interrupted.clause}; "
                "what came is kept, pull again then to go on.",
            ) from interrupted
        if left_seconds <= 0:
            raise DownloadFailure(
                "SOURCE_UNREACHABLE",
                f"{self._host} {self._given_up}: {interrupted.clause}; {self._advice}.",
            ) from interrupted
        # Chance is there so that many who were cut off together do not come back together.
        seconds = self._pause_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        return max(min(seconds, left_seconds), wish_seconds)


def wished_seconds(retry_after: str) -> float:
    """What a Retry-After header asks for, as seconds or as a date; 0 where it says nothing sensible."""
    if retry_after.strip().isdecimal():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
