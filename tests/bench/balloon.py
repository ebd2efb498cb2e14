"""Another program that takes memory: each line on its input is the MiB that it is to hold from now on.

python -m tests.bench.balloon

It touches what it takes, in pages that nothing can merge or drop, and says "held N" when it has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

MIB = 1 << 20


class Balloon:
    """The program, as a process that whoever measures blows up and lets go."""

    def __init__(self, wrapper: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "tests.bench.balloon"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.held_mib = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def hold(self, mib: int) -> None:
        """Returns when it holds so much; ConnectionError when it was killed on the way."""
        try:
            self._process.stdin.write(f"{mib}\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ConnectionError("the balloon was killed") from error
        if not self._process.stdout.readline():
            raise ConnectionError("the balloon was killed")
        self.held_mib = mib


def main() -> None:
    held: list[bytearray] = []
    for line in sys.stdin:
        wanted = int(line)
        del held[wanted:]
        while len(held) < wanted:
            held.append(bytearray(os.urandom(4096) * (MIB // 4096)))
        print("held", wanted, flush=True)


if __name__ == "__main__":
    main()
