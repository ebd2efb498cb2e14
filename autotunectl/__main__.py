"""The program ``autotunectl``.

Invariant: Ctrl-C ends it with status 130 and without a trace, at whatever moment it comes; so
everything is imported inside.
"""

from __future__ import annotations

import _thread
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main() -> int:
    """Runs the command line of this process; returns its exit status."""
    try:
        sys.unraisablehook = _keep_interrupt
        from autotunectl.entry import run_command_line

        status = run_command_line(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is Python's own end
    return status


def _keep_interrupt(unraisable: UnraisableHookArgs) -> None:
    """Ctrl-C in a callback, where Python cannot raise it and would print it, comes again a moment later."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        # From this thread it would come at once, inside the hook, and be lost.
        _thread.start_new_thread(_thread.interrupt_main, ())
    else:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.exit(main())
