"""What one invocation of autotunectl knows: its global options, its streams, its way to the daemon.

``options`` fills it, every command gets it. Invariant: results go to standard output, everything
else to standard error; with ``--json`` both carry JSON alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autotunectl.json_output import dump
from autotunectl.output import PLAIN, Style

if TYPE_CHECKING:
    from autotune.client import Client
    from autotune.errors import AutotuneError

CLIENT_NAME = "autotunectl"


@dataclass(slots=True)
class Session:
    """``address``: None takes the default. ``json``: machine-readable output.

    ``flags``: for each field of the wire that this command line can set, the flag that sets it.
    """

    address: str | None = None
    json: bool = False
    flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def out_style(self) -> Style:
        """How standard output is coloured."""
        return _style(sys.stdout.isatty())

    @property
    def error_style(self) -> Style:
        """How standard error is coloured."""
        return _style(sys.stderr.isatty())

    @property
    def can_ask(self) -> bool:
        """Whether a person is there who could answer a question."""
        return not self.json and sys.stdin is not None and sys.stdin.isatty()

    def sentence_of(self, error: AutotuneError) -> str:
        """The error's sentence, in the words of this command line."""
        name = error.metadata.get("field", "")
        if name in self.flags and error.message.startswith(f"{name}: "):
            return self.flags[name] + error.message.removeprefix(name)
        return error.message

    def write(self, text: str) -> None:
        """Writes a result and makes it visible at once."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def write_json(self, value: object) -> None:
        """Writes a result as one line of JSON."""
        self.write(dump(value) + "\n")

    def note(self, text: str) -> None:
        """Tells the person something beside the result; a program is not told."""
        if not self.json:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def connect(self, *, warns: bool = True) -> Client:
        """A client of the daemon, which is started when none runs.

        ``warns``: tells the person where the daemon is of another version. Raises DaemonUnreachable and
        AddressInvalid.
        """
        from autotune.start import ensure_daemon

        started = ensure_daemon(self.address)
        client = self.client()
        self._introduce(client, started=started, warns=warns)
        return client

    def client(self) -> Client:
        """A client of the daemon, whether one runs or not. Raises AddressInvalid."""
        from autotune.client import Client

        return Client(self.address, CLIENT_NAME)

    def _introduce(self, client: Client, *, started: bool, warns: bool) -> None:
        from autotune.version import version_mismatch

        if self.json:
            return
        info = client.info()
        if started:
            self.note(
                f'Started autotuned {info.version} (process {info.process_id}); "autotunectl stop" ends it.'
            )
        if warns and (warning := version_mismatch(info.version, CLIENT_NAME)):
            self.note(warning.message)


def _style(is_terminal: bool) -> Style:
    if not is_terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return PLAIN
    return Style(colours=True)
