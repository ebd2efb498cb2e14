"""The exit statuses of autotunectl. Scripts switch on them; ``entry`` gives them.

0    done
1    anything else: among it a source of models that does not answer (SOURCE_UNREACHABLE), a download that is
     damaged (DOWNLOAD_CORRUPT), and a full disk (STORAGE_FULL)
2    the command line is wrong
3    the daemon is not running, cannot be started, or stops
4    no such model
5    refused: it does not fit, is too long, not supported, not valid, or not given to everybody
6    busy: the queue is full
7    the engine failed
130  interrupted
"""

from __future__ import annotations

from autotune.errors import AutotuneError

DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
NOT_FOUND = 4
REFUSED = 5
BUSY = 6
ENGINE_FAILED = 7
INTERRUPTED = 130

_BY_REASON = {
    "ADDRESS_INVALID": UNREACHABLE,
    "DAEMON_UNREACHABLE": UNREACHABLE,
    "SHUTTING_DOWN": UNREACHABLE,
    "MODEL_NOT_FOUND": NOT_FOUND,
    "CONTEXT_TOO_LONG": REFUSED,
    "FIELD_INVALID": REFUSED,
    "KEY_REVOKED": REFUSED,
    "MESSAGE_TOO_LARGE": REFUSED,
    "MODEL_INVALID": REFUSED,
    "MODEL_TOO_LARGE": REFUSED,
    "SOURCE_DENIED": REFUSED,
    "UNAUTHENTICATED": REFUSED,
    "UNSUPPORTED": REFUSED,
    "WOULD_SWAP": REFUSED,
    "QUEUE_FULL": BUSY,
    "ENGINE_UNREACHABLE": ENGINE_FAILED,
    "MODEL_LOAD_FAILED": ENGINE_FAILED,
}


def status_of(error: AutotuneError) -> int:
    """The exit status for an error."""
    return _BY_REASON.get(error.reason, FAILED)
