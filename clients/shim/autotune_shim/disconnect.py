"""Ends work whose client has gone: generation must stop at once, in whatever phase it is.

Used by ``generation`` around everything between the request's body and the answer's last byte.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from autotune_shim.http import ClientGone


class until_disconnect:  # noqa: N801  # read as a phrase, like asyncio.timeout
    """Within ``async with until_disconnect(receive)``, a closed connection raises ClientGone.

    It cancels the task at its current await and turns that one cancellation into ClientGone when the
    block is left; a cancellation from elsewhere passes. Enter after the body was read.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("until_disconnect needs a task to cancel")
        self._task = task
        self._cancelling = task.cancelling()
        self._watch = asyncio.get_running_loop().create_task(self._wait())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.cancel()
        if not self._gone:
            return
        if (
            self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise ClientGone from error

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
