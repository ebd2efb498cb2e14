"""The one change of a model that is under way: a load, a growth, a shrink or an unload.

Each ``services.model_actor`` owns one. Invariant: one change at a time; however it ends, its owner is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from autotuned.core.errors import AutotuneError, ModelLoadFailed
from autotuned.core.ports import Clock
from autotuned.log import fields

Change = Callable[[], Coroutine[Any, Any, None]]

_log = logging.getLogger(__name__)


class Changes:
    """``on_failed`` is told what a change raised, then ``on_ended`` comes; neither when it is cancelled."""

    def __init__(
        self,
        *,
        model_id: str,
        clock: Clock,
        on_failed: Callable[[AutotuneError], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._model_id = model_id
        self._clock = clock
        self._on_failed = on_failed
        self._on_ended = on_ended
        self._task: asyncio.Task[None] | None = None
        self._unload: asyncio.Task[None] | None = None
        self._began_at = 0.0
        self._ended_seconds = 0.0

    @property
    def under_way(self) -> bool:
        """Whether the model changes now."""
        return self._task is not None

    def seconds(self) -> float:
        """Seconds that all changes took so far: the difference of two is what lay between them."""
        return self._ended_seconds + (self._clock.monotonic() - self._began_at if self._task else 0.0)

    def begin(self, change: Change) -> asyncio.Task[None]:
        """Begins a change; nothing else may be under way."""
        self._began_at = self._clock.monotonic()
        self._task = asyncio.create_task(self._run(change), name=f"model {self._model_id}")
        return self._task

    def begin_unload(self, unload: Change) -> asyncio.Task[None]:
        """Begins a change that others may wait for with ``unloaded``."""
        self._unload = self.begin(unload)
        return self._unload

    async def unloaded(self) -> None:
        """Waits for the end of an unload that is under way."""
        if self._unload is not None:
            await asyncio.wait([self._unload])

    async def cancel(self) -> None:
        """Ends what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, change: Change) -> None:
        try:
            await change()
        except AutotuneError as error:
            self._on_failed(error)
        except Exception as error:  # noqa: BLE001 - an engine's defect must not end the actor
            _log.exception("load failed unexpectedly", extra=fields(model=self._model_id))
            self._on_failed(
                ModelLoadFailed(
                    f'Loading "{self._model_id}" failed: {error}. The daemon\'s log has the details.',
                    model=self._model_id,
                )
            )
        finally:
            self._ended_seconds = self.seconds()
            self._task = self._unload = None
        self._on_ended()
