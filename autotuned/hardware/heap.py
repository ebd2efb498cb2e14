"""Gives the system back what the C library keeps of memory that was freed.

``daemon`` calls it once, when start-up is over: compiling and reading modules frees much that glibc keeps
for later. Elsewhere there is nothing to give back, and nothing happens.
"""

from __future__ import annotations

import ctypes


def trim_heap() -> bool:
    """Whether the C library could be told; it is glibc alone that has the call."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim(0)
    return True
