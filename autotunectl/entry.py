"""Runs one command line: the place where an error becomes a sentence and an exit status.

``__main__`` calls it. Invariant: a user never sees a stack trace. What nobody foresaw goes to
``autotunectl.log`` in the state folder.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from autotune.errors import AutotuneError

from autotunectl import exits
from autotunectl.cli import root
from autotunectl.json_output import dump
from autotunectl.output import printable
from autotunectl.session import Session

_WRITE_FAILURES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


def run_command_line(arguments: Sequence[str]) -> int:
    """Runs ``arguments``; returns the exit status."""
    # A daemon may be started while gRPC is in use, which then would restart its threads in the child.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    session = Session()
    try:
        return _run(arguments, session)
    except (BrokenPipeError, SystemExit):
        # The reader has gone (click turns that into SystemExit). Nothing more can be said, not even
        # while Python closes the streams.
        _drop_output()
        return exits.FAILED


def _open_missing_streams() -> None:
    """A stream that the caller has closed leads nowhere, instead of to whatever is opened next."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - it lives as long as the process


def _drop_output() -> None:
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(arguments: Sequence[str], session: Session) -> int:
    try:
        status = root.main(list(arguments), prog_name="autotunectl", standalone_mode=False, obj=session)
        sys.stdout.flush()
    except click.UsageError as error:
        session.json = session.json or "--json" in arguments
        return _fail(session, _usage_sentence(error), "USAGE", {}, exits.USAGE)
    except click.ClickException as error:
        return _fail(session, error.format_message(), "USAGE", {}, exits.USAGE)
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except AutotuneError as error:
        sentence = session.sentence_of(error)
        return _fail(session, sentence, error.reason, error.metadata, exits.status_of(error))
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  # the last resort before a user would see a stack trace
        return _fail_unforeseen(session, error)
    return status if isinstance(status, int) else exits.DONE


def _usage_sentence(error: click.UsageError) -> str:
    sentence = error.format_message()
    if "--help" in sentence or sentence.endswith("?"):
        return sentence
    path = error.ctx.command_path if error.ctx else "autotunectl"
    return f'{sentence.rstrip(".")}; "{path} --help" explains it.'


def _fail(session: Session, sentence: str, reason: str, metadata: dict[str, str], status: int) -> int:
    if session.json:
        text = dump({"error": {"reason": reason, "message": sentence, "metadata": metadata}})
    else:
        text = session.error_style.red(printable(sentence))
    sys.stderr.write(text + "\n")
    return status


def _fail_unforeseen(session: Session, error: Exception) -> int:
    if isinstance(error, OSError) and error.filename is None and error.errno in _WRITE_FAILURES:
        _drop_output()
        sentence = f"The output could not be written: {error.strerror}."
        return _fail(session, sentence, "OUTPUT_FAILED", {}, exits.FAILED)
    return _fail(session, _logged(error), "INTERNAL", {}, exits.FAILED)


def _logged(error: Exception) -> str:
    """Writes the trace to the log; returns the sentence for the user."""
    import time
    import traceback

    from autotune.state import state_directory

    what = f"autotunectl failed unexpectedly ({type(error).__name__}: {error})"
    path = state_directory() / "autotunectl.log"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as log:
            log.write(time.strftime("%Y-%m-%dT%H:%M:%S%z\n"))
            traceback.print_exception(error, file=log)
    except OSError:
        return f"{what}; please report it."
    return f"{what}; the details are in {path}."
