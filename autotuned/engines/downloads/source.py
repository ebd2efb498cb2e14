"""What the worker and the sources say to each other.

``registry`` and ``huggingface`` implement it. Invariant: nothing is fetched before ``Found.fetch`` is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autotuned.engines.downloads.protocol import Done, Resolved, Step

Tell = Callable[[Step], None]
"""Takes how far a download has come."""


class Found(Protocol):
    """A download that is known to the byte, and of which nothing is fetched yet."""

    @property
    def line(self) -> Resolved:
        """What would be fetched."""

    def fetch(self, tell: Tell) -> Done:
        """Fetches what is missing, verifies it and gives it its name.

        Raises ``DownloadFailure``, or ``OSError`` where the disk refuses.
        """
