"""Calls that do not end at once, for the blocking client: events that stream, work in the background.

Invariant of a stream: the call begins with the first event that is asked for, and ``close`` ends it from
wherever it is called: another thread, or a signal handler while this thread waits for an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

import grpc

from autotune.errors import from_rpc_error

_Event = TypeVar("_Event")


class BackgroundCall:
    """A call that goes on while its caller does something else. How it ends is nobody's business."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def cancel(self) -> None:
        """Ends the call; nothing for one that has ended."""
        self._call.cancel()


class EventStream(Iterator[_Event], Generic[_Event]):
    """Yields what the daemon sends. ``start`` makes the call; ``address`` is for the errors.

    Raises ``autotune.errors``; after ``close`` it just ends.
    """

    def __init__(self, start: Callable[[], Any], address: str) -> None:
        self._start = start
        self._address = address
        self._call: Any = None
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Event:
        if self._call is None and not self._closed:
            self._call = self._start()
        if self._closed:
            self.close()  # it came before the call was there
            raise StopIteration
        try:
            event: _Event = next(self._call)
        except grpc.RpcError as error:
            if self._closed:
                raise StopIteration from None
            raise from_rpc_error(error, self._address) from None
        return event

    def close(self) -> None:
        """Ends the call; nothing for one that has ended."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
