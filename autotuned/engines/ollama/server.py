"""The server: found where somebody runs it, or started under a guard where nobody does.

``engine`` owns one, has it look every few seconds, and hears from it when the server is gone.
Invariants: a server that somebody else started is never ended; one of ours that dies is started again, after
a pause that grows with each time; ``close`` leaves none of ours.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from autotuned.core.engine import EngineState, Finding, Severity
from autotuned.core.errors import EngineUnreachable
from autotuned.core.ports import Clock
from autotuned.core.settings import OllamaSettings
from autotuned.engines.chat_events import UnreadableStream
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import ConnectionBroken, ConnectionSilent
from autotuned.engines.ollama.address import is_loopback
from autotuned.engines.ollama.client import Refused, Version, ask
from autotuned.engines.ollama.environment import MANAGED, server_environment
from autotuned.engines.ollama.output import OllamaOutput
from autotuned.engines.ollama.versions import OLDEST_TEXT, features_of
from autotuned.engines.process import WorkerProcess, start_worker
from autotuned.log import fields

PROGRAM = "ollama"
START_SECONDS = 60.0
START_LOOK_SECONDS = 0.1
# Between a death and the next start: doubled each time, from the first to the longest.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
# One that lived for so long did not die of its start.
SETTLED_SECONDS = 60.0
# How long a broken connection waits to learn why our server died.
CAUSE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Server:
    """Ollama's server at one address. ``on_gone`` hears why it is gone, each time."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        settings: OllamaSettings,
        search_path: str | None,
        clock: Clock,
        on_gone: Callable[[str], None],
    ) -> None:
        self.endpoint = endpoint
        self.state = EngineState.OFF if settings.mode == "off" else EngineState.UNREACHABLE
        self.detail = "nobody has looked yet" if settings.mode != "off" else "ollama.mode is off"
        self.version = ""
        self.findings: tuple[Finding, ...] = ()
        self._settings = settings
        self._search_path = search_path
        self._clock = clock
        self._on_gone = on_gone
        self._looking = asyncio.Lock()
        self._process: WorkerProcess[OllamaOutput] | None = None
        self._life: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._deaths_count = 0
        self._start_at = 0.0
        self._is_closed = False

    @property
    def is_ours(self) -> bool:
        """Whether a process of the daemon serves."""
        return self._process is not None and not self._process.is_gone

    @property
    def accelerator(self) -> str:
        """What it computes on, where our own has told."""
        return self._process.log.accelerator if self._process else ""

    async def look(self) -> None:
        """Looks whether it is there, and starts it where it may and should be. Raises nothing."""
        if self.state is EngineState.OFF or self._is_closed:
            return
        async with self._looking:
            if self.state is EngineState.STARTING:
                return
            try:
                answer = await ask(self.endpoint, "/api/version", Version)
            except ConnectionBroken as error:
                await self._not_there(str(error))
            except ConnectionSilent:
                self._set(
                    EngineState.UNREACHABLE,
                    f"{self.endpoint.url} takes connections but does not answer",
                    Finding(
                        code="ollama-silent",
                        severity=Severity.WARNING,
                        subject=PROGRAM,
                        text=f"Ollama takes connections at {self.endpoint.url} but does not answer.",
                        advice="Restart Ollama.",
                    ),
                )
            except (Refused, UnreadableStream):
                self._set(
                    EngineState.UNREACHABLE,
                    f"what answers at {self.endpoint.url} is not Ollama",
                    Finding(
                        code="ollama-is-something-else",
                        severity=Severity.WARNING,
                        subject=PROGRAM,
                        text=f"What answers at {self.endpoint.url} is not Ollama.",
                        advice='Set ollama.url to where Ollama is, or ollama.mode to "off".',
                    ),
                )
            else:
                self._there(answer.version)

    async def ready(self) -> None:
        """Returns when it serves. Raises ``EngineUnreachable`` where it does not and will not soon."""
        if self.state is not EngineState.READY:
            await self.look()
        if self.state is EngineState.STARTING:
            await self._started.wait()
        if self.state is not EngineState.READY:
            raise self.unreachable(
                f"is not there: {self.detail}", advice='"autotunectl doctor" says what to do', served=False
            )

    async def failed(self) -> str:
        """Looks again after a request broke; why the server is gone, or "" where it is not."""
        process = self._process
        if process is not None and (cause := await process.gone_within(CAUSE_SECONDS)):
            return cause
        await self.look()
        return "" if self.state is EngineState.READY else self.detail

    def unreachable(
        self, what: str, *, served: bool = True, advice: str = "send the request again"
    ) -> EngineUnreachable:
        """The error of a server of which this is to be said."""
        error = EngineUnreachable(f"Ollama {what}; {advice}.", url=self.endpoint.url)
        error.served = served
        return error

    async def close(self) -> None:
        """Ends our process, if there is one. Safe to call twice."""
        self._is_closed = True
        # A look that is under way may be about to start one.
        async with self._looking:
            if self._process is not None:
                await self._process.end("the engine was closed")
        if self._life is not None:
            await self._life

    def _set(self, state: EngineState, detail: str = "", *findings: Finding) -> None:
        if (state, detail) != (self.state, self.detail):
            _log.info(
                "ollama stands otherwise",
                extra=fields(state=state.value, detail=detail, url=self.endpoint.url),
            )
        self.state, self.detail, self.findings = state, detail, findings

    def _there(self, version: str) -> None:
        """Something answers like Ollama does."""
        self.version = version
        if self._settings.mode == MANAGED and not self.is_ours:
            self._set(
                EngineState.UNREACHABLE,
                f"another Ollama answers at {self.endpoint.url}, and managed mode runs its own",
                Finding(
                    code="ollama-address-taken",
                    severity=Severity.PROBLEM,
                    subject=PROGRAM,
                    text=f"Another Ollama server answers at {self.endpoint.url}, so the daemon starts none.",
                    advice='Stop that server, set ollama.url to a free port, or set ollama.mode to "attach".',
                ),
            )
        elif not features_of(version).is_new_enough:
            self._set(
                EngineState.UNREACHABLE,
                f"its version {version} cuts long prompts without a word",
                Finding(
                    code="ollama-too-old",
                    severity=Severity.PROBLEM,
                    subject=PROGRAM,
                    text=f"Ollama {version} cuts long prompts without a word, so it is not used.",
                    advice=f"Update Ollama to {OLDEST_TEXT} or newer.",
                ),
            )
        else:
            self._set(EngineState.READY)

    async def _not_there(self, problem: str) -> None:
        """Nothing answers: it is started, where that is ours to do and not too soon."""
        url = self.endpoint.url
        self._on_gone(f"nothing answers at {url}")
        if self._settings.mode == "attach" or not is_loopback(self.endpoint) or self.endpoint.tls:
            self._missing(problem)
            return
        if self.is_ours:
            self._set(
                EngineState.UNREACHABLE, f"the daemon's own server does not answer at {url} ({problem})"
            )
            return
        program = shutil.which(PROGRAM, path=self._search_path)
        if program is None and self._settings.mode == MANAGED:
            self._set(
                EngineState.NOT_INSTALLED,
                f'no "{PROGRAM}" is on PATH',
                Finding(
                    code="ollama-not-installed",
                    severity=Severity.WARNING,
                    subject=PROGRAM,
                    text=f'ollama.mode is "managed", but no "{PROGRAM}" is on the PATH of the daemon.',
                    advice='Install Ollama, or set ollama.mode to "auto".',
                ),
            )
        elif program is None and (self.version or self._settings.url):  # it was there, or is to be
            self._missing(problem)
        elif program is None:
            self._set(EngineState.NOT_INSTALLED, f'nothing answers at {url}, and no "{PROGRAM}" is on PATH')
        elif self._clock.monotonic() >= self._start_at:
            await self._start(program)

    def _missing(self, problem: str) -> None:
        """Nothing answers where a server is known to be, and it is not ours to start."""
        url = self.endpoint.url
        self._set(
            EngineState.UNREACHABLE,
            f"nothing answers at {url} ({problem})",
            Finding(
                code="ollama-unreachable",
                severity=Severity.WARNING,
                subject=PROGRAM,
                text=f"Nothing answers at {url}, where Ollama should be.",
                advice='Start Ollama, correct ollama.url, or set ollama.mode to "off".',
            ),
        )

    async def _start(self, program: str) -> None:
        environment = server_environment(self._settings, self.endpoint)
        try:
            process = await start_worker((program, "serve"), Path(), OllamaOutput(), environment)
        except OSError as error:
            self._set(EngineState.UNREACHABLE, f"{program} cannot be started: {error.strerror}")
            return
        if self._is_closed:
            await process.end("the engine was closed")
            return
        self._process = process
        self._started.clear()
        self._set(EngineState.STARTING, f"{program} was started")
        self._life = asyncio.create_task(self._live(process), name="ollama serve")

    async def _live(self, process: WorkerProcess[OllamaOutput]) -> None:
        """From the start of our process to its end, whatever ends it."""
        started_at = self._clock.monotonic()
        try:
            if await self._answers(process, started_at + START_SECONDS):
                process.log.is_serving = True
            elif not process.is_gone:
                await process.end(f"it did not answer within {START_SECONDS:g} seconds")
            self._started.set()
            cause = await process.wait_gone()
            lived_seconds = self._clock.monotonic() - started_at
            self._deaths_count = 1 if lived_seconds >= SETTLED_SECONDS else self._deaths_count + 1
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self._deaths_count - 1, 16), LONGEST_PAUSE_SECONDS)
            self._start_at = self._clock.monotonic() + pause
            # The next look decides: somebody else may have taken the address.
            self._set(EngineState.UNREACHABLE, f"the daemon's own server ended: {cause}")
            self._on_gone(self.detail)
        finally:
            self._started.set()

    async def _answers(self, process: WorkerProcess[OllamaOutput], deadline: float) -> bool:
        """Whether our process serves before the deadline."""
        while await process.gone_within(START_LOOK_SECONDS) is None:
            try:
                answer = await ask(self.endpoint, "/api/version", Version)
            except (ConnectionBroken, ConnectionSilent, Refused, UnreadableStream):
                if self._clock.monotonic() >= deadline:
                    return False
            else:
                if not process.is_gone:
                    self._there(answer.version)
                return not process.is_gone
        return False
