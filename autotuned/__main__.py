"""The program ``autotuned``: arguments, umask, logging, run, exit status.

Exit statuses: 0 stopped as asked, 2 bad usage or configuration, 3 another daemon runs, 4 the
runtime folder or socket cannot be used, 5 the data folder cannot be used, 1 anything else. The
reason is one sentence on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from autotuned import __version__, daemon, log
from autotuned.config import ConfigInvalid, describe, load
from autotuned.core.errors import StorageFull
from autotuned.core.settings import Settings
from autotuned.runtime import AlreadyRunning, RuntimeFolderUnusable
from autotuned.storage.errors import DataFolderUnusable

EXIT_CONFIG = 2
EXIT_ALREADY_RUNNING = 3
EXIT_RUNTIME_FOLDER = 4
EXIT_DATA_FOLDER = 5


def main(arguments: list[str] | None = None) -> int:
    """Runs the daemon in the foreground until it is stopped; returns the exit status."""
    options = _parser().parse_args(arguments)
    os.umask(0o077)  # process-wide, so before any thread exists
    if options.help_config:
        sys.stdout.write(describe())
        return 0
    try:
        settings = load(flags=dict(_assignments(options.set)), environment=os.environ, file=options.config)
    except ConfigInvalid as error:
        return _refuse(str(error), EXIT_CONFIG)
    return _serve(settings)


def _serve(settings: Settings) -> int:
    try:
        log.configure(settings.daemon)
        asyncio.run(daemon.run(settings))
    except AlreadyRunning as error:
        return _refuse(str(error), EXIT_ALREADY_RUNNING)
    except RuntimeFolderUnusable as error:
        return _refuse(str(error), EXIT_RUNTIME_FOLDER)
    except (DataFolderUnusable, StorageFull) as error:
        return _refuse(str(error), EXIT_DATA_FOLDER)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autotuned",
        description="The daemon that owns this machine's local language models. "
        "It runs in the foreground; autotunectl starts it by itself when it is needed.",
    )
    parser.add_argument("--version", action="version", version=f"autotuned {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="read this configuration file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="set one option, for example --set queue.max_waiting=4; may be repeated",
    )
    parser.add_argument("--help-config", action="store_true", help="list every option and leave")
    return parser


def _assignments(texts: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise SystemExit(_refuse(f"--set {text}: it is not of the form SECTION.KEY=VALUE.", EXIT_CONFIG))
        pairs.append((key, value))
    return pairs


def _refuse(sentence: str, status: int) -> int:
    sys.stderr.write(f"autotuned: {sentence}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
