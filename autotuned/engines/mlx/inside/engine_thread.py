"""The one thread that owns MLX: loads the model, then does one thing after the other.

``server`` hands it work; MLX's streams belong to the thread that made them. Invariant: work that nobody
wants any more is not begun, and ends at its next look when it is under way.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx

from autotuned.engines.mlx import protocol
from autotuned.engines.mlx.inside.files import read_state, write_state
from autotuned.engines.mlx.inside.generation import Cancelled, Generation
from autotuned.engines.mlx.inside.problems import Problem
from autotuned.engines.mlx.inside.runtime import Runtime

Emit = Callable[[dict[str, Any]], None]


class Work:
    """Something to do. ``is_wanted`` may be made False from any thread; ``end`` is called once."""

    def __init__(self, do: Callable[[Work], None], end: Callable[[Problem | None], None]) -> None:
        self.do = do
        self.end = end
        self.is_wanted = True


class EngineThread:
    """Owns the runtime of one worker. ``failed`` is called with the reason when a load fails."""

    def __init__(
        self,
        settings: protocol.WorkerSettings,
        *,
        tell: Callable[[str], None],
        ready: Callable[[protocol.LoadReport], None],
        failed: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._tell, self._ready, self._failed = tell, ready, failed
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._runtime: Runtime | None = None
        self._thread = threading.Thread(target=self._run, name="mlx", daemon=True)

    def start(self) -> None:
        """Begins to load."""
        self._thread.start()

    def submit(self, work: Work) -> None:
        """Has it done after everything that was submitted before."""
        self._queue.put(work)

    def count(self, prompt: protocol.PromptData) -> int:
        """The tokens of a prompt. May be called from any thread. Raises ``Problem``."""
        return len(self._loaded.prompts.prompt(prompt, finds_opening=False).tokens)

    def generate(self, work: Work, call: protocol.GenerateCall, emit: Emit) -> None:
        """Answers a call."""
        with contextlib.suppress(Cancelled):
            Generation(self._loaded, call, emit, lambda: work.is_wanted).run()

    def save(self, call: protocol.FileCall) -> protocol.Written:
        """Writes the state of a conversation, and makes it the current one."""
        states = self._loaded.states
        state = states.of(call.conversation)
        if state is None or not state.tokens:
            return protocol.Written(tokens_count=0)
        lasting = state.lasting()
        try:
            size = write_state(self._path(call.file_name), lasting)
        except (OSError, RuntimeError) as error:
            raise Problem(protocol.UNWRITTEN, str(error)) from error
        states.put(call.conversation, state)
        return protocol.Written(tokens_count=len(lasting.tokens), bytes_count=size)

    def restore(self, call: protocol.FileCall) -> protocol.Written:
        """Reads a state back for a conversation; 0 tokens for one that is none or does not fit."""
        states = self._loaded.states
        try:
            state = read_state(self._path(call.file_name))
        except Exception:  # noqa: BLE001 - a damaged file fails in many ways
            traceback.print_exc()  # the daemon has the worker's last lines
            return protocol.Written(tokens_count=0)
        if len(state.tokens) >= self._settings.context_tokens:
            return protocol.Written(tokens_count=0)
        states.put(call.conversation, state)
        return protocol.Written(tokens_count=len(state.tokens))

    def status(self, active_count: int) -> protocol.WorkerStatus:
        """What is in memory. May be called from any thread."""
        return protocol.WorkerStatus(
            active_requests_count=active_count,
            active_bytes=mx.get_active_memory(),
            peak_bytes=mx.get_peak_memory(),
            cached_bytes=mx.get_cache_memory(),
        )

    @property
    def _loaded(self) -> Runtime:
        assert self._runtime is not None  # noqa: S101 - nothing is served before the load is over
        return self._runtime

    def _path(self, file_name: str) -> Path:
        return Path(self._settings.prefix_folder) / Path(file_name).name

    def _run(self) -> None:
        try:
            self._runtime = Runtime(self._settings, self._tell)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is why there is no model
            self._failed(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
            return
        self._ready(self._runtime.report)
        while True:
            self._do(self._queue.get())

    def _do(self, work: Work) -> None:
        problem: Problem | None = None
        try:
            if work.is_wanted:
                work.do(work)
        except Problem as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - the worker goes on, and the client is told
            problem = Problem(protocol.FAILED, f"{type(error).__name__}: {error}")
        mx.clear_cache()
        work.end(problem)
