"""The guard: a small process between the daemon and a worker, so that no worker outlives the daemon.

    python -I -S guard.py DAEMON_PID SOCKET_PATH COMMAND...

``process`` starts it; nothing imports it, and it imports next to nothing. It runs COMMAND as its
only child, which writes "worker PID" as its first line, and then
  - kills the child when its own standard input ends, which is when the daemon dies or lets go;
  - passes SIGTERM on, removes the socket when the child is gone, and ends the way the child ended.
What the worker started itself and left behind is killed with it: they share a process group.
On Linux the kernel kills the child when the guard dies and ends the guard when the daemon dies;
elsewhere the child's standard input ends with the guard, and the daemon kills the child.
The command may be any program: all this is done before it is executed.
"""

import contextlib
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

PR_SET_PDEATHSIG = 1
# Above the daemon's 0: when memory runs out, the model goes first.
WORKER_OOM_SCORE = 500
USAGE_STATUS = 64


def main() -> int:
    """Runs the command of ``sys.argv`` and returns its exit status, or dies of the signal it died of."""
    if len(sys.argv) < 4:  # noqa: PLR2004 - three arguments and the program's name
        sys.stderr.write("usage: guard.py DAEMON_PID SOCKET_PATH COMMAND...\n")
        return USAGE_STATUS
    daemon_pid, socket_path, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    wake_reader, wake_writer = os.pipe()
    os.set_blocking(wake_writer, False)
    signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # SIGTERM must not be missed between here and the first look at the pipe: it is remembered there.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
    set_parent_death_signal = _parent_death_signal_setter()
    set_parent_death_signal(signal.SIGTERM)
    if os.getppid() != daemon_pid:
        return 0
    worker_pid = _start(command, set_parent_death_signal)
    status = _wait(worker_pid, wake_reader, daemon_pid)
    with contextlib.suppress(OSError):
        os.unlink(socket_path)  # noqa: PTH108 - pathlib is not tiny
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        _die_of(-code)
    return code


def _parent_death_signal_setter() -> Callable[[int], object]:
    """A function that names the signal that comes when the parent dies; without effect off Linux."""
    if sys.platform != "linux":
        return lambda _number: None
    import ctypes  # noqa: PLC0415 - only Linux needs it

    libc = ctypes.CDLL(None)
    return lambda number: libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def _start(command: list[str], set_parent_death_signal: Callable[[int], object]) -> int:
    """Forks and executes the command; its standard input is a pipe that ends with this process."""
    guard_pid = os.getpid()
    reader, _writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reader)
        return pid
    try:
        set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != guard_pid:
            os._exit(1)
        os.setpgid(0, 0)
        os.umask(0o077)
        os.dup2(reader, 0)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123 - pathlib is not tiny
            score.write(str(WORKER_OOM_SCORE))
        os.write(1, f"worker {os.getpid()}\n".encode())
        os.execv(command[0], command)  # noqa: S606 - an argument list of the daemon's own
    except OSError as error:
        os.write(2, f"error: {command[0]} cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _wait(worker_pid: int, wake_reader: int, daemon_pid: int) -> int:
    """Serves signals and the pipe until the worker is gone; returns its wait status."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    poll.register(wake_reader, select.POLLIN)
    while True:
        if os.waitid(os.P_PID, worker_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            # Before its number can be another's: whoever it started and left behind.
            with contextlib.suppress(OSError):
                os.killpg(worker_pid, signal.SIGKILL)
            return os.waitpid(worker_pid, 0)[1]
        for descriptor, _ in poll.poll():
            if descriptor == wake_reader:
                _pass_on(os.read(wake_reader, 512), worker_pid, daemon_pid)
            elif not os.read(0, 512):
                poll.unregister(0)
                os.kill(worker_pid, signal.SIGKILL)


def _pass_on(numbers: bytes, worker_pid: int, daemon_pid: int) -> None:
    """Hands SIGTERM to the worker; when it came because the daemon died, nobody waits any more."""
    if signal.SIGTERM in numbers:
        orphaned = os.getppid() != daemon_pid
        os.kill(worker_pid, signal.SIGKILL if orphaned else signal.SIGTERM)


def _die_of(number: int) -> NoReturn:
    """Ends this process by the signal that ended the worker, without a core file of its own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
