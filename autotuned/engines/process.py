"""A guard and its worker as the daemon sees them: started, listened to, ended, and known to be gone.

Engines start one for each process that they need. Killing goes through the guard: when its standard
input ends it kills the worker, and when the worker's output ends the worker is gone for certain.
Invariant: ``wait_gone`` returns only when no process of this incarnation is left and its socket is
removed, whoever ended it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast

from autotuned.core.errors import ModelLoadFailed
from autotuned.engines.output import Output
from autotuned.log import fields

GUARD = Path(__file__).with_name("guard.py")
TERMINATE_SECONDS = 2.0
KILL_SECONDS = 2.0
# What the smallest system allows for the path of a Unix socket, its closing zero included.
SOCKET_PATH_BYTES = 104
LONGEST_LINE_BYTES = 64 << 10
# What a worker writes while it serves is looked at so often: some write twenty lines for each request.
BREATH_SECONDS = 0.02

_log = logging.getLogger(__name__)


Log = TypeVar("Log", bound=Output)


class WorkerProcess(asyncio.SubprocessProtocol, Generic[Log]):
    """One incarnation's processes. Made by ``start_worker``.

    ``socket_path`` is removed when it is gone; a worker that serves on TCP has none, "".
    """

    def __init__(self, socket_path: Path, log: Log) -> None:
        self.socket_path = socket_path
        self.log = log
        self.news = asyncio.Event()
        self.process_id = 0
        self._gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self._cause = ""
        self._output_ended = False
        self._guard_ended = False
        self._rest = b""

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of it."""
        return self._gone.done()

    async def wait_gone(self) -> str:
        """Returns, once nothing is left, why it ended."""
        return await asyncio.shield(self._gone)

    async def gone_within(self, seconds: float) -> str | None:
        """Why it ended, or None when it is still there after so many seconds."""
        done, _ = await asyncio.wait([self._gone], timeout=seconds)
        return self._gone.result() if done else None

    async def end(self, cause: str) -> None:
        """Ends it politely, then firmly; returns when it is gone. Safe to call twice."""
        if self._transport is None or self.is_gone:
            return
        self._cause = self._cause or cause
        self._listen()
        self._signal(signal.SIGTERM)
        if await self.gone_within(TERMINATE_SECONDS) is None:
            self.kill(cause)
        await self.wait_gone()

    def kill(self, cause: str) -> None:
        """Has it killed; ``wait_gone`` tells when that is done. Safe to call twice."""
        if self._transport is None or self.is_gone:
            return
        self._cause = self._cause or cause
        self._listen()
        guard_input = self._transport.get_pipe_transport(0)
        if guard_input is not None:
            guard_input.close()
        # A guard that does not do its work is ended too; the kernel then ends the worker.
        asyncio.get_running_loop().call_later(KILL_SECONDS, self._signal, signal.SIGKILL)

    def _listen(self, *, on: bool = True) -> None:
        """Takes its output, or leaves it where it is for a moment."""
        output = self._transport.get_pipe_transport(1) if self._transport else None
        if isinstance(output, asyncio.ReadTransport):
            (output.resume_reading if on else output.pause_reading)()

    def _signal(self, number: signal.Signals) -> None:
        if self._transport is not None and not self._guard_ended:
            with contextlib.suppress(ProcessLookupError):
                self._transport.send_signal(number)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers the transport."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Splits the output into lines."""
        _ = fd
        self.log.bytes_count += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._take(line.decode(errors="replace"))
        self.news.set()
        if self.log.is_serving and not self._cause:
            self._listen(on=False)
            asyncio.get_running_loop().call_later(BREATH_SECONDS, self._listen)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """The end of the output is the end of the worker, which holds it to its last moment."""
        _ = exc
        if fd == 1:
            self._output_ended = True
            self._check_gone()

    def process_exited(self) -> None:
        """The guard is gone; a worker that is not is ended here."""
        self._guard_ended = True
        if not self._output_ended and self.process_id:
            # With whatever it started: the worker leads a process group of its own.
            with contextlib.suppress(OSError):
                os.killpg(self.process_id, signal.SIGKILL)
        self._check_gone()

    def _take(self, line: str) -> None:
        if not self.process_id and line.startswith("worker "):
            self.process_id = int(line.removeprefix("worker "))
            return
        if not self.log.is_serving:
            _log.debug("engine", extra=fields(process_id=self.process_id, line=line))
        self.log.add(line)

    def _check_gone(self) -> None:
        if self._gone.done() or not (self._output_ended and self._guard_ended):
            return
        with contextlib.suppress(OSError):
            self.socket_path.unlink()
        assert self._transport is not None  # noqa: S101 - a process that ended was started
        status = self._transport.get_returncode()
        self._transport.close()
        self._gone.set_result(self._cause or _cause_of(status or 0, self.log.last_words))
        self.news.set()


def fresh_socket_path(runtime: Path, letter: str) -> Path:
    """A path that no incarnation had. Raises ``ModelLoadFailed`` where the folder's is too long."""
    path = runtime / f"{letter}-{uuid.uuid4().hex[:8]}.sock"
    length = len(os.fsencode(path))
    if length >= SOCKET_PATH_BYTES:
        raise ModelLoadFailed(
            f'The socket path "{path}" has {length} bytes, where {SOCKET_PATH_BYTES - 1} are the most; '
            "set AUTOTUNE_RUNTIME_DIR to a folder with a shorter path.",
            path=str(path),
        )
    return path


async def start_worker(
    command: Sequence[str],
    socket_path: Path,
    log: Log,
    environment: Mapping[str, str] | None = None,
    *,
    base: Mapping[str, str] | None = None,
) -> WorkerProcess[Log]:
    """Starts the command under a guard, in a session of its own. Raises ``OSError``.

    ``environment`` is set beside ``base``, which is the daemon's own where it is None.
    """
    guard = (sys.executable, "-I", "-S", "-B", str(GUARD), str(os.getpid()), str(socket_path))
    _, worker = await asyncio.get_running_loop().subprocess_exec(
        lambda: WorkerProcess(socket_path, log),
        *guard,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        env={**(os.environ if base is None else base), **(environment or {})},
    )
    return worker


def _cause_of(status: int, last_words: str) -> str:
    """The exit status of a guard, which is that of its worker, in words."""
    if status >= 0:
        words = f"exited with status {status}"
    else:
        words = f"killed by signal {-status} ({signal.Signals(-status).name})"
    if last_words and status != -signal.SIGKILL:
        words += f', its last words "{last_words}"'
    return words
