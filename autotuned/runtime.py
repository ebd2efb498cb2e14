"""The runtime folder and the lock that makes this daemon the only one in it.

``daemon`` prepares the folder and holds the lock before anything is bound, because gRPC removes a
live socket without asking. Invariants: nobody else can reach the folder; a folder that holds
anything of other programs is refused, never changed; the kernel releases the lock however we end.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from types import TracebackType
from typing import Self

from autotune.address import SOCKET_NAME, SOCKET_PATH_MAX_BYTES

LOCK_NAME = "autotuned.lock"
WORKER_SOCKET_PATTERN = "w-*.sock"
LONGEST_SOCKET_NAME_BYTES = 16
"""Of the sockets in the folder: the daemon's own, and those of workers."""

_PRIVATE = 0o700
_ANYBODY = 0o077
_DIAL_SECONDS = 0.5
_ELSEWHERE = "or set AUTOTUNE_RUNTIME_DIR to another folder."


class RuntimeFolderUnusable(Exception):
    """The runtime folder cannot hold sockets that are ours alone. One sentence, with what to do."""


class AlreadyRunning(Exception):
    """Another daemon holds the lock. ``process_id`` is 0 where it is not known."""

    def __init__(self, process_id: int = 0) -> None:
        who = f"process {process_id}" if process_id else "another process"
        super().__init__(
            f"A daemon is running already ({who}); use that one, end it first, "
            "or set AUTOTUNE_RUNTIME_DIR to another folder for a second one."
        )
        self.process_id = process_id


def prepare_runtime_folder(path: Path) -> None:
    """Makes the folder (and its parents) with mode 0700, or makes sure of one that exists.

    Raises ``RuntimeFolderUnusable``.
    """
    room_bytes = SOCKET_PATH_MAX_BYTES - LONGEST_SOCKET_NAME_BYTES - 1
    size_bytes = len(os.fsencode(path))
    if size_bytes > room_bytes:
        raise RuntimeFolderUnusable(
            f"The runtime folder {path} has a path of {size_bytes} bytes, and sockets in it allow for "
            f"{room_bytes}; set AUTOTUNE_RUNTIME_DIR to a shorter one, such as /tmp/autotune."
        )
    if "%" in str(path):
        raise RuntimeFolderUnusable(
            f"The runtime folder {path} has a percent sign in its path, which the addresses of sockets "
            "cannot have; set AUTOTUNE_RUNTIME_DIR to another one."
        )
    try:
        for folder in reversed([each for each in (path, *path.parents) if not each.exists()]):
            with suppress(FileExistsError):
                folder.mkdir(mode=_PRIVATE)
        if path.is_symlink():
            _check_owner(path, path.lstat())
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _check_folder(path, descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RuntimeFolderUnusable(
            f"The runtime folder {path} cannot be used ({error.strerror}); make it a folder that you can "
            f"write to, {_ELSEWHERE}"
        ) from error


class InstanceLock:
    """Holds ``autotuned.lock`` while it is entered, and clears what a dead daemon left.

    Entering raises ``AlreadyRunning`` when another process holds it, and ``RuntimeFolderUnusable``.
    """

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._descriptor = -1

    def __enter__(self) -> Self:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(self._runtime / LOCK_NAME, flags, 0o600)
            self._take()
        except OSError as error:
            self._release()
            raise RuntimeFolderUnusable(
                f"The lock {self._runtime / LOCK_NAME} cannot be taken ({error.strerror}); "
                f"check the folder and its disk, {_ELSEWHERE}"
            ) from error
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        self._release()

    def _take(self) -> None:
        try:
            flock(self._descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(_read_process_id(self._descriptor)) from None
        if _answers(
            self._runtime / SOCKET_NAME
        ):  # somebody's clean-up removed the lock file of a live daemon
            raise AlreadyRunning
        os.fchmod(self._descriptor, 0o600)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        for leftover in (self._runtime / SOCKET_NAME, *self._runtime.glob(WORKER_SOCKET_PATTERN)):
            if leftover.is_socket():
                leftover.unlink(missing_ok=True)

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _check_folder(path: Path, descriptor: int) -> None:
    status = os.fstat(descriptor)
    _check_owner(path, status)
    if stat.S_IMODE(status.st_mode) != _PRIVATE:
        names = os.listdir(descriptor)
        if status.st_mode & _ANYBODY and names and LOCK_NAME not in names:
            raise RuntimeFolderUnusable(
                f"The runtime folder {path} is open to other users and holds other files; "
                "set AUTOTUNE_RUNTIME_DIR to a folder of its own."
            )
        os.fchmod(descriptor, _PRIVATE)
    if os.fstat(descriptor).st_mode & _ANYBODY:
        raise RuntimeFolderUnusable(
            f"The runtime folder {path} is open to other users and its disk keeps it so; "
            "set AUTOTUNE_RUNTIME_DIR to a folder on another disk."
        )
    if not os.access(path, os.W_OK):
        raise RuntimeFolderUnusable(
            f"The runtime folder {path} is on a read-only disk; make it writable, {_ELSEWHERE}"
        )


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise RuntimeFolderUnusable(
            f"The runtime folder {path} belongs to another user (number {status.st_uid}); "
            "set AUTOTUNE_RUNTIME_DIR to a folder of your own."
        )


def _read_process_id(descriptor: int) -> int:
    """0 where the holder has not yet written it."""
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _answers(path: Path) -> bool:
    """Whether somebody listens on this socket. The error of a dead one is no error here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dial:
        dial.settimeout(_DIAL_SECONDS)
        try:
            dial.connect(str(path))
        except (BlockingIOError, TimeoutError):
            return True  # its backlog is full
        except OSError:
            return False
    return True
