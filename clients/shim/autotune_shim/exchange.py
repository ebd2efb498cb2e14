"""What a dialect and the transport agree upon. Dialects implement it, ``generation`` drives it.

A dialect reads a body into an ``Exchange`` and renders the daemon's events through its ``answer``.
Invariant: nothing here or in a dialect does I/O, so that a dialect is tested as plain functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from autotune.v1.inference_service_pb2 import GenerateRequest, GenerateResponse

Headers = Mapping[str, str]
"""Request headers by lower-case name."""


class RequestInvalid(Exception):
    """The HTTP request cannot become a ``GenerateRequest``.

    ``message`` is one sentence for the caller, ``field`` the path of what is wrong in the caller's
    own words ("messages[0].role", or empty), ``code`` a stable name for programs.
    """

    def __init__(
        self, message: str, *, field: str = "", code: str = "invalid_value", status: int = 400
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole HTTP answer. Header names are lower case."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class StreamAnswer(ABC):
    """Renders a generation piece by piece. An empty result sends nothing.

    ``complete`` turns True when ``event`` has rendered the end.
    """

    media_type: ClassVar[bytes]
    complete: bool = False

    @abstractmethod
    def event(self, response: GenerateResponse) -> bytes:
        """What the client gets for Started, Delta or Finished."""

    @abstractmethod
    def waiting(self, position: int) -> bytes:
        """A sign of life that clients skip. ``position``: requests that go first, 0 when none do."""

    @abstractmethod
    def failure(self, error: Exception) -> bytes:
        """The end of a stream that fails after its headers were sent."""


class WholeAnswer(ABC):
    """Gathers a generation and renders it at once.

    ``complete`` turns True when ``event`` has seen the end.
    """

    complete: bool = False

    @abstractmethod
    def event(self, response: GenerateResponse) -> None:
        """Takes Started, Delta or Finished."""

    @abstractmethod
    def reply(self) -> HttpReply:
        """The answer. Only called when ``complete``."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request for a generation, and how to answer it."""

    request: GenerateRequest
    answer: StreamAnswer | WholeAnswer


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one endpoint speaks: ``read`` raises RequestInvalid; ``refuse`` renders whatever went wrong."""

    read: Callable[[bytes, Headers], Exchange]
    refuse: Callable[[Exception], HttpReply]
