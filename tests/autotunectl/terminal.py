"""autotunectl at a pseudo-terminal: a real process that a real Ctrl-C reaches through its terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pexpect import EOF
from pexpect.fdpexpect import fdspawn

PATIENCE_SECONDS = 30
COLUMNS = 80
CTRL_C = "\x03"
CTRL_D = "\x04"
ENTER = "\r"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The terminal must be the process's own for the kernel to turn Ctrl-C into a signal to it.
_PROGRAM = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "from autotunectl.__main__ import main; sys.exit(main())"
)


@dataclass
class Terminal:
    """``screen`` is what the person sees and types at."""

    screen: fdspawn
    process: subprocess.Popen[bytes]

    def end(self) -> tuple[int, str]:
        """Waits for the end; the exit status, and what was written since the last thing expected."""
        self.screen.expect(EOF)
        return self.process.wait(PATIENCE_SECONDS), self.screen.before

    def lines(self, text: str) -> list[str]:
        """What was drawn, each drawing a line, without what steers the terminal."""
        return [line for line in re.split(r"[\r\n]+", _CONTROL.sub("", text)) if line.strip()]


@contextmanager
def terminal(*arguments: str, **environment: str) -> Iterator[Terminal]:
    """Runs a command line of autotunectl at a terminal of 80 columns; it is gone at the end of the block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **environment},
        start_new_session=True,
    )
    os.close(theirs)
    screen = fdspawn(ours, timeout=PATIENCE_SECONDS, encoding="utf-8")
    try:
        yield Terminal(screen, process)
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)
        screen.close()
