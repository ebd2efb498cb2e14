"""Reads the processes of this user, with what closing each would free.

``hardware.reader`` asks; ``hardware.applications`` groups them. Invariant: a process that ends meanwhile is
left out, one that hides its program goes by its short name; 500 of them take well under 100 ms.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from autotuned.hardware.applications import Process
from autotuned.hardware.texts import read_text, whole_number

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LEAST_NAMED_BYTES = 1 << 20
"""Of the memory of an interpreter whose arguments are worth reading."""

_RUSAGE_INFO_V0 = 0
_RUSAGE_BYTES = 96
_FOOTPRINT_OFFSET = 72
"""``ri_phys_footprint`` comes after a UUID of 16 bytes and seven figures of 8. macOS, sys/resource.h."""


def read_linux(root: Path, user_id: int) -> list[Process]:
    """Those of a user under /proc; ``root`` is the folder that "/" stands for."""
    try:
        with os.scandir(root / "proc") as entries:
            return list(_read_linux([entry for entry in entries if entry.name.isdecimal()], user_id))
    except OSError:
        return []


def read_macos(user_id: int) -> list[Process]:
    """Those of a user, with what macOS's Activity Monitor shows as their memory."""
    return list(_read_macos(user_id))


def parse_stat(text: str) -> tuple[str, int] | None:
    """Short name, which may hold spaces and parentheses, and parent, of /proc/PID/stat."""
    before, closing, after = text.rpartition(")")
    _, opening, name = before.partition("(")
    match after.split():
        case [_, parent, *_] if opening and closing and parent.isdecimal():
            return name, int(parent)
    return None


def parse_statm(text: str) -> int:
    """Resident pages that are no file's and not shared, of /proc/PID/statm; 0 where it does not tell."""
    match text.split():
        case [_, resident, shared, *_]:
            return max(0, (whole_number(resident) or 0) - (whole_number(shared) or 0))
    return 0


def _read_linux(entries: list[os.DirEntry[str]], user_id: int) -> Iterator[Process]:
    for entry in entries:
        folder = Path(entry.path)
        known = parse_stat(read_text(folder / "stat") or "") if _is_of(entry, user_id) else None
        if known is None:
            continue
        name, parent = known
        process = Process(
            process_id=int(entry.name),
            parent_id=parent,
            program=_program(folder) or name,
            memory_bytes=parse_statm(read_text(folder / "statm") or "") * _PAGE_BYTES,
        )
        if process.is_interpreter and process.memory_bytes >= _LEAST_NAMED_BYTES:
            arguments = (read_text(folder / "cmdline") or "").split("\0")
            process = replace(process, arguments=tuple(filter(None, arguments)))
        yield process


def _is_of(entry: os.DirEntry[str], user_id: int) -> bool:
    try:
        return entry.stat().st_uid == user_id
    except OSError:  # it has ended
        return False


def _program(folder: Path) -> str:
    try:
        return str((folder / "exe").readlink())
    except OSError:  # it has ended, or shows nobody
        return ""


def _read_macos(user_id: int) -> Iterator[Process]:
    for found in psutil.process_iter():
        try:
            with found.oneshot():
                if found.uids().real != user_id:
                    continue
                process = Process(
                    process_id=found.pid,
                    parent_id=found.ppid() or 0,
                    program=found.exe() or found.name(),
                    memory_bytes=_footprint_bytes(found.pid) or found.memory_info().rss,
                )
                if process.is_interpreter:
                    process = replace(process, arguments=tuple(found.cmdline()))
        except psutil.Error:  # it has ended, or shows nobody
            continue
        yield process


def _footprint_bytes(process_id: int) -> int:
    """Its own pages, compressed ones included; 0 where this is not macOS or the process has ended."""
    try:
        ask = ctypes.CDLL(None).proc_pid_rusage
    except (AttributeError, OSError):
        return 0
    usage = ctypes.create_string_buffer(_RUSAGE_BYTES)
    if ask(ctypes.c_int(process_id), ctypes.c_int(_RUSAGE_INFO_V0), usage) != 0:
        return 0
    return int(struct.unpack_from("<Q", usage, _FOOTPRINT_OFFSET)[0])
