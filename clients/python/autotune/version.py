"""The version of this installation, and the sentence for a daemon of another one.

The one place where the version is written: the build reads it from here. A constant, because asking
the installed package for it costs a command a sixth of its time.
"""

from __future__ import annotations

from autotune.errors import VersionMismatch

__version__ = "0.1.0"


def version_mismatch(
    daemon_version: str, client_name: str = "autotune", client_version: str = __version__
) -> VersionMismatch | None:
    """What to tell the user when the running daemon is not of the client's version, else None."""
    if daemon_version == client_version:
        return None
    return VersionMismatch(
        f"autotuned {daemon_version} is running but {client_name} is {client_version}; "
        'run "autotunectl stop" and the next command starts the new one.',
        metadata={"daemonVersion": daemon_version, "clientVersion": client_version},
    )
