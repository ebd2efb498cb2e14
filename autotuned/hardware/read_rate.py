"""Measures how fast all cores together read memory.

``hardware.reader`` asks, once in the life of a machine. Invariant: takes about a fifth of a second, and at
most 256 MiB (a server with an enormous cache: twice that cache) and an eighth of what is available, which is
given back before it returns. The C library searches the memory while the interpreter's lock is free: other
threads go on.

Pages are written before they are read: all that were never written are one page of zeros, which lies in the
cache. The buffers together are some times the last cache, and each core reads its own from end to end. The
best of a few short spans counts: what else runs can only slow them.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autotuned.hardware.texts import read_text, whole_number

_MIB = 1 << 20
_USUAL_MOST_BYTES = 256 * _MIB
_MOST_BYTES = 1024 * _MIB
_LEAST_BYTES = 32 * _MIB
_LEAST_PER_THREAD_BYTES = 4 * _MIB
_TIMES_CACHE = 4
_LEAST_TIMES_CACHE = 2
_SHARE_OF_AVAILABLE = 8
_CHUNK_BYTES = 2 * _MIB
_SPAN_SECONDS = 0.02
_SPANS_COUNT = 3
_MOST_THREADS = 64
_ABSENT_BYTE = 0xFF
_WRITTEN_BYTE = 0x5A
_MOST_WAIT_SECONDS = 5.0


_Find = Callable[[int, int, int], object]
"""memchr(3): address, byte, length."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What one thread read: bytes, and when it began and ended."""

    bytes_count: int
    began: float
    ended: float


def buffer_bytes(cache_bytes: int, available_bytes: int) -> int:
    """How much to read: some times the cache, if that may be taken; 0 where it is too little to tell."""
    least = max(_LEAST_BYTES, _LEAST_TIMES_CACHE * cache_bytes)
    wanted = max(least, min(_USUAL_MOST_BYTES, _TIMES_CACHE * cache_bytes))
    size = min(wanted, _MOST_BYTES, available_bytes // _SHARE_OF_AVAILABLE)
    return size if size >= least else 0


def last_cache_bytes(root: Path) -> int:
    """All last-level caches together; 0 where Linux does not tell."""
    caches: dict[str, int] = {}
    for folder in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index3")):
        size = whole_number((read_text(folder / "size") or "").strip().removesuffix("K"))
        caches[read_text(folder / "shared_cpu_list") or str(folder)] = (size or 0) << 10
    return sum(caches.values())


def measure_bytes_per_second(size_bytes: int, threads_count: int) -> int:
    """Bytes that these threads together read in a second from buffers of this size together.

    0 where the memory or the C library cannot be had.
    """
    count = max(1, min(threads_count, _MOST_THREADS, size_bytes // _LEAST_PER_THREAD_BYTES))
    try:
        find = ctypes.CDLL(None).memchr
        buffers = [mmap.mmap(-1, size_bytes // count) for _ in range(count)]
    except (AttributeError, OSError, TypeError, ValueError):
        return 0
    find.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    find.restype = ctypes.c_void_p
    for buffer in buffers:
        _ask_for_large_pages(buffer)
    try:
        return max(_rate(works) for works in _read_all(find, buffers))
    finally:
        for buffer in buffers:
            buffer.close()


def _read_all(find: _Find, buffers: list[mmap.mmap]) -> list[list[_Work]]:
    """What each thread read, for each span."""
    spans: list[list[_Work]] = [[] for _ in range(_SPANS_COUNT)]
    start = threading.Barrier(len(buffers))

    def work(buffer: mmap.mmap) -> None:
        view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        address = ctypes.addressof(view)
        ctypes.memset(address, _WRITTEN_BYTE, len(buffer))
        offset = 0
        with contextlib.suppress(threading.BrokenBarrierError):  # another thread could not start
            for works in spans:
                start.wait(_MOST_WAIT_SECONDS)
                done, offset = _read_span(find, address, len(buffer), offset)
                works.append(done)
        del view  # a buffer that is looked at cannot be closed

    threads = [threading.Thread(target=work, args=(buffer,), name="read rate") for buffer in buffers]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    except RuntimeError:  # no more threads
        start.abort()
    for thread in started:
        thread.join()
    return spans


def _read_span(find: _Find, address: int, size: int, offset: int) -> tuple[_Work, int]:
    """Reads on from an offset, round and round, until the span is over."""
    began, read = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + _SPAN_SECONDS:
        length = min(_CHUNK_BYTES, size - offset)
        find(address + offset, _ABSENT_BYTE, length)
        read += length
        offset = (offset + length) % size
    return _Work(read, began, now), offset


def _ask_for_large_pages(buffer: mmap.mmap) -> None:
    """Linux writes those much faster for the first time; without them it only takes longer."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel that was built without them
            buffer.madvise(mmap.MADV_HUGEPAGE)


def _rate(works: list[_Work]) -> int:
    if not works:
        return 0
    seconds = max(work.ended for work in works) - min(work.began for work in works)
    return round(sum(work.bytes_count for work in works) / seconds) if seconds > 0 else 0
