"""Which build of llama.cpp runs the models: a ``llama-server`` of the user's, or the one in the package.

``engine`` looks before every load and whenever it is refreshed, and tells what was found.
Invariants: a program is started only to be examined, and once for each state of its file; a program
that was named in the settings is never replaced by another one, whatever is wrong with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as distribution_version
from pathlib import Path

from autotuned.core.engine import Finding, Severity
from autotuned.core.errors import ModelLoadFailed
from autotuned.core.ports import Clock
from autotuned.engines.llamacpp.binary import BinaryUnusable, ServerBinary, examine
from autotuned.engines.llamacpp.gpus import machine_gpus

AUTO = "auto"
EMBEDDED = "embedded"
PROGRAM = "llama-server"
# What cannot be used is looked at again after so long: a driver may have been busy.
AGAIN_SECONDS = 60.0
# How long those who want to know may wait; looking goes on without them.
PATIENCE_SECONDS = 2.0
# Before the first look is done nobody knows whether there is a GPU to plan for: that is worth a wait.
FIRST_PATIENCE_SECONDS = 10.0

GPU_UNUSED = "gpu-unused"
UNUSABLE = "llama-server-unusable"


@dataclass(frozen=True, slots=True)
class _Found:
    """A program as it lies on the disk, or why there is none."""

    path: Path | None = None
    state: tuple[int, int, int] = (0, 0, 0)
    problem: str = ""


_NOTHING = _Found()


class Builds:
    """The build in use, as it was when it was looked at last.

    ``setting`` is ``llamacpp.server``; ``gpus`` tells the GPUs of the machine, and may block.
    """

    def __init__(
        self,
        setting: str,
        *,
        engine: str,
        clock: Clock,
        gpus: Callable[[], tuple[str, ...]] = machine_gpus,
    ) -> None:
        self._setting = setting
        self._engine = engine
        self._clock = clock
        self._read_gpus = gpus
        self._gpus: tuple[str, ...] | None = None
        self._wheel = f"xllamacpp {distribution_version('xllamacpp')}"
        self._found: _Found | None = None
        self._problem = ""
        self._failed_at = 0.0
        self._look: asyncio.Task[None] | None = None
        self.binary: ServerBinary | None = None

    @property
    def is_named(self) -> bool:
        """Whether the settings name a program."""
        return self._setting not in {AUTO, EMBEDDED}

    @property
    def was_looked_at(self) -> bool:
        """Whether a look was finished: what is told of a program and its GPU holds."""
        return self._found is not None

    @property
    def is_known(self) -> bool:
        """Whether it is known what would run a model now."""
        return not self.is_named or self.binary is not None or bool(self._problem)

    @property
    def problem(self) -> str:
        """Why the program that the settings name cannot be used, as a clause; "" otherwise."""
        return self._problem if self.is_named else ""

    @property
    def identity(self) -> str:
        """Program, version and build; "" while the program that the settings name is not known."""
        if self.binary is not None:
            return self.binary.identity
        return "" if self.is_named else self._wheel

    @property
    def accelerator(self) -> str:
        """What computes; "" while that is not known."""
        if self.binary is not None:
            return self.binary.accelerator
        if self.is_named:
            return ""
        return "Metal" if _wheel_has_gpu() else "CPU"

    @property
    def has_gpu(self) -> bool:
        """Whether layers can be put on a GPU; False while that is not known."""
        if self.binary is not None:
            return self.binary.has_gpu
        return not self.is_named and _wheel_has_gpu()

    def findings(self) -> tuple[Finding, ...]:
        """What a person should know of it."""
        found = []
        if self._problem:
            severity = Severity.PROBLEM if self.is_named else Severity.WARNING
            instead = "no model can be loaded" if self.is_named else "the build in the package runs instead"
            found.append(
                Finding(
                    code=UNUSABLE,
                    severity=severity,
                    subject=self._engine,
                    text=f"{self._problem}; {instead}.",
                    advice=self._advice,
                )
            )
        # Of a program that cannot be used the other finding tells.
        if self._gpus and not self.has_gpu and not self.problem:
            found.append(self._gpu_unused(self._gpus))
        return tuple(found)

    async def look(self, *, patience_seconds: float | None = None) -> None:
        """Finds the program, and examines it where it is new. Callers at the same time share one look.

        Returns after ``patience_seconds`` even if that is not done yet; it goes on.
        """
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(self._look_once())
        await asyncio.wait([self._look], timeout=patience_seconds)

    async def for_load(self) -> ServerBinary | None:
        """What is to run a model: a program, or None for the build in the package.

        Raises ``ModelLoadFailed`` where the settings name a program that cannot be used.
        """
        await self.look()
        if self.is_named and self.binary is None:
            problem = self.problem or f'"{self._setting}" could not be examined'
            raise ModelLoadFailed(f"{problem}; {self._advice}", path=self._setting)
        return self.binary

    async def close(self) -> None:
        """Ends a look, and the program that is examined with it."""
        if self._look is not None:
            self._look.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._look

    @property
    def _advice(self) -> str:
        if self.is_named:
            return "set llamacpp.server to a current llama-server, to auto or to embedded."
        return 'update or remove it, or set llamacpp.server to "embedded".'

    async def _look_once(self) -> None:
        if self._gpus is None:
            self._gpus = await asyncio.to_thread(self._read_gpus)
        found = await asyncio.to_thread(self._find)
        now = self._clock.monotonic()
        if found == self._found and not (self._problem and now - self._failed_at >= AGAIN_SECONDS):
            return
        binary, problem = None, found.problem
        if found.path is not None:
            try:
                binary = await examine(found.path)
            except BinaryUnusable as error:
                problem = str(error)
        self._found, self.binary, self._problem, self._failed_at = found, binary, problem, now

    def _find(self) -> _Found:
        if self._setting == EMBEDDED:
            return _NOTHING
        if not self.is_named:
            on_path = shutil.which(PROGRAM)
            return _of(Path(on_path)) if on_path else _NOTHING
        if os.sep in self._setting:
            try:
                return _of(Path(self._setting).expanduser())
            except (RuntimeError, ValueError) as error:  # a home that nobody has, a name that no file has
                return _Found(problem=f'"{self._setting}" is no path ({error})')
        on_path = shutil.which(self._setting)
        return _of(Path(on_path)) if on_path else _Found(problem=f'There is no program "{self._setting}"')

    def _gpu_unused(self, gpus: tuple[str, ...]) -> Finding:
        who = f"{self.binary.path} finds no GPU" if self.binary else "its build in the package has no GPU"
        return Finding(
            code=GPU_UNUSED,
            severity=Severity.WARNING,
            subject=self._engine,
            text=f"llama.cpp leaves the {', '.join(gpus)} unused: {who}.",
            advice=(
                f"Put a {PROGRAM} built for it (CUDA, ROCm, Vulkan or Metal) on the daemon's PATH, or "
                "set llamacpp.server to its path."
            ),
        )


def _wheel_has_gpu() -> bool:
    """The build in the package has Metal, and no other GPU."""
    return sys.platform == "darwin" and os.uname().machine == "arm64"


def _of(path: Path) -> _Found:
    """A program that can be executed, or what hinders it. Blocks."""
    try:
        state = path.stat()
    except OSError as error:
        return _Found(problem=f"{path} cannot be used ({error.strerror})")
    if not path.is_file() or not os.access(path, os.X_OK):
        return _Found(problem=f"{path} is not a program that can be executed")
    return _Found(path, (state.st_mtime_ns, state.st_size, state.st_ino))
