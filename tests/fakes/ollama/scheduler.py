"""Which runner serves a request, and when one is loaded, kept, replaced and let go.

The endpoints ask it for a runner. One load at a time; a loaded runner is shared at once; a request
that does not fit the loaded shape waits until the runner is idle, and has it replaced.
Invariant: at most one runner for each blob, whatever its tags.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fakes.ollama.loaded import Loaded, Wanted
from tests.fakes.ollama.observer import Observer
from tests.fakes.ollama.problems import Problem
from tests.fakes.ollama.runner import Runner
from tests.fakes.ollama.settings import Settings

_BUSY = "server busy, please try again.  maximum pending requests exceeded"


@dataclass(slots=True)
class _Pending:
    wanted: Wanted
    answer: asyncio.Future[Loaded] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Scheduler:
    """The runners of one server."""

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self._settings = settings
        self._observer = observer
        self._loaded: dict[str, Loaded] = {}
        self._pending: asyncio.Queue[_Pending] = asyncio.Queue(settings.max_queue)
        self._loop: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._loop = asyncio.create_task(self._serve())

    async def close(self) -> None:
        """Stops every runner."""
        if self._loop is not None:
            self._loop.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop
        for loaded in list(self._loaded.values()):
            self._stop(loaded)
        await asyncio.gather(*self._stopping)

    @property
    def loaded(self) -> list[Loaded]:
        return list(self._loaded.values())

    @asynccontextmanager
    async def runner(self, wanted: Wanted) -> AsyncIterator[Runner]:
        """A runner for the time of one request. Raises ``Problem``."""
        loaded = self._loaded.get(wanted.key)
        if loaded is not None and not await loaded.needs_reload(wanted):
            loaded.use(wanted)
        else:
            loaded = await self._wait(wanted)
        try:
            yield loaded.runner
        finally:
            self._release(loaded)

    async def expire(self, key: str) -> None:
        """Lets a runner go as soon as nobody uses it; one that loads is waited for."""
        loaded = self._loaded.get(key)
        if loaded is None:
            return
        await loaded.ready.wait()
        loaded.expires_at = time.time()
        loaded.keep_alive_seconds = 0
        if loaded.users == 0:
            self._stop(loaded)

    async def _wait(self, wanted: Wanted) -> Loaded:
        pending = _Pending(wanted)
        try:
            self._pending.put_nowait(pending)
        except asyncio.QueueFull:
            raise Problem(_BUSY, 503) from None
        try:
            return await pending.answer
        except asyncio.CancelledError:
            if pending.answer.done() and not pending.answer.cancelled() and not pending.answer.exception():
                self._release(pending.answer.result())
            raise

    async def _serve(self) -> None:
        while True:
            pending = await self._pending.get()
            if pending.answer.cancelled():
                continue
            try:
                loaded = await self._provide(pending)
            except Problem as problem:
                if not pending.answer.cancelled():
                    pending.answer.set_exception(problem)
                continue
            if loaded is None:
                continue
            if pending.answer.cancelled():
                self._release(loaded)
            else:
                pending.answer.set_result(loaded)

    async def _provide(self, pending: _Pending) -> Loaded | None:
        wanted, replaced = pending.wanted, False
        while True:
            loaded = self._loaded.get(wanted.key)
            if loaded is not None and not await loaded.needs_reload(wanted):
                loaded.use(wanted)
                return loaded
            if loaded is None and len(self._loaded) < self._settings.max_loaded:
                return await self._load(pending, replaced=replaced)
            replaced = replaced or loaded is not None
            leaving = loaded or self._least_wanted()
            leaving.keep_alive_seconds = 0
            leaving.stop_timer()
            if leaving.users == 0:
                self._stop(leaving)
            await leaving.gone.wait()

    async def _load(self, pending: _Pending, *, replaced: bool) -> Loaded | None:
        wanted = pending.wanted.completed()
        keep_alive = wanted.keep_alive_seconds
        wanted = replace(
            wanted, keep_alive_seconds=self._settings.keep_alive_seconds if keep_alive is None else keep_alive
        )
        runner = Runner(
            model=wanted.model,
            options=wanted.options,
            context_shift=wanted.context_shift,
            settings=self._settings,
        )
        loaded = Loaded(wanted, runner)
        self._loaded[wanted.key] = loaded
        self._observer.loading(wanted, replaced=replaced)
        load = asyncio.ensure_future(self._start(runner, replaced=replaced))
        pending.answer.add_done_callback(lambda _: load.cancel())
        try:
            await load
        except (Problem, asyncio.CancelledError) as error:
            self._stop(loaded)
            await loaded.gone.wait()
            if isinstance(error, Problem):
                raise
            if not pending.answer.cancelled():  # the server itself is ending
                raise
            return None
        finally:
            load.cancel()
        loaded.use(wanted)
        loaded.ready.set()
        return loaded

    async def _start(self, runner: Runner, *, replaced: bool) -> None:
        await asyncio.sleep(self._observer.faults.reload_seconds if replaced else 0)
        await runner.start()

    def _least_wanted(self) -> Loaded:
        """Idle ones first, then the shortest time to be kept, then the path: not the least recently used."""
        ordered = sorted(self._loaded.values(), key=lambda each: (each.keep_alive_seconds, each.key))
        return next((each for each in ordered if each.users == 0), ordered[0])

    def _release(self, loaded: Loaded) -> None:
        loaded.users -= 1
        if loaded.users:
            return
        if loaded.keep_alive_seconds <= 0:
            self._stop(loaded)
        else:
            loaded.keep(lambda: self._stop(loaded) if loaded.users == 0 else None)

    def _stop(self, loaded: Loaded) -> None:
        if self._loaded.get(loaded.key) is not loaded:
            return
        del self._loaded[loaded.key]
        loaded.leaving = True
        loaded.stop_timer()
        task = asyncio.create_task(self._end(loaded))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _end(self, loaded: Loaded) -> None:
        await loaded.runner.stop()
        self._observer.unloaded(loaded.key)
        loaded.ready.set()
        loaded.gone.set()

    def described(self) -> list[dict[str, Any]]:
        """For the double's own page."""
        return [each.described() for each in self._loaded.values()]
