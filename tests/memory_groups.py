"""Real control groups with a memory limit and no swap, for processes that a test or a benchmark starts.

A group is a child of this process's own, which takes root's rights or a delegated group; where it
cannot be made, ``memory_group`` raises ``CannotLimitMemory`` with the reason.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autotuned.hardware.cgroup_paths import UNIFIED, find_folders

_serial = itertools.count()
_REMOVAL_SECONDS = 10.0


class CannotLimitMemory(Exception):
    """This system does not let this process make a group with a limit."""


@dataclass(frozen=True)
class MemoryGroup:
    """A group; ``unified`` is whether it is of version 2."""

    folder: Path
    unified: bool

    @property
    def wrapper(self) -> list[str]:
        """What to put before a command so that it runs in the group from its first instruction on."""
        return ["sh", "-c", f'echo $$ > "{self.folder}/cgroup.procs" && exec "$@"', "sh"]

    def limit(self, limit_bytes: int) -> None:
        """Sets the limit, of memory and of memory with swap. OSError: it holds more than can be dropped."""
        if self.unified:
            self._write("memory.swap.max", 0, optional=True)
            self._write("memory.max", limit_bytes)
            return
        both = self.folder / "memory.memsw.limit_in_bytes"
        if not both.exists():
            self._write("memory.limit_in_bytes", limit_bytes)
        elif limit_bytes > int(both.read_text()):
            self._write("memory.memsw.limit_in_bytes", limit_bytes)
            self._write("memory.limit_in_bytes", limit_bytes)
        else:
            self._write("memory.limit_in_bytes", limit_bytes)
            self._write("memory.memsw.limit_in_bytes", limit_bytes)

    @property
    def used_bytes(self) -> int:
        """Memory in use, with the cache of files."""
        return int(self._read("memory.current" if self.unified else "memory.usage_in_bytes"))

    @property
    def killed_count(self) -> int:
        """Processes in it that the kernel killed for want of memory."""
        counters = self._read("memory.events" if self.unified else "memory.oom_control")
        return next(int(line.split()[1]) for line in counters.splitlines() if line.startswith("oom_kill "))

    def stat(self, name: str) -> int:
        """A counter of memory.stat, with the groups below."""
        prefix = "" if self.unified else "total_"
        lines = self._read("memory.stat").splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] == prefix + name)

    def process_ids(self) -> list[int]:
        """Who is in it."""
        return [int(line) for line in self._read("cgroup.procs").split()]

    def remove(self) -> None:
        """Kills whoever is left in it and removes it."""
        deadline = time.monotonic() + _REMOVAL_SECONDS
        while self.folder.exists():
            with contextlib.suppress(OSError):
                for process_id in self.process_ids():
                    os.kill(process_id, signal.SIGKILL)
                self.folder.rmdir()
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.folder} still has processes: {self.process_ids()}")
            time.sleep(0.02)  # the kernel tells nobody when a killed process has left its group

    def _read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def _write(self, name: str, number: int, *, optional: bool = False) -> None:
        path = self.folder / name
        if path.exists() or not optional:
            path.write_text(str(number))


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """An empty group with this limit, which is gone afterwards with everything in it."""
    group = _make()
    try:
        try:
            group.limit(limit_bytes)
        except OSError as error:
            raise CannotLimitMemory(f"a control group's memory cannot be limited here: {error}") from error
        yield group
    finally:
        group.remove()


def _make() -> MemoryGroup:
    v1 = find_folders("memory", Path("/"))
    folders = v1 or find_folders(UNIFIED, Path("/"))
    if not folders:
        raise CannotLimitMemory("this system has no control groups for memory")
    group = MemoryGroup(folders[0] / f"autotune-test-{os.getpid()}-{next(_serial)}", unified=not v1)
    try:
        group.folder.mkdir()
    except OSError as error:
        raise CannotLimitMemory(f"a control group cannot be made here: {error}") from error
    return group
