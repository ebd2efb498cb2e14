"""autotunectl version: client and daemon. Starts no daemon."""

from __future__ import annotations

from autotune.errors import DaemonNotRunning
from autotune.version import __version__, version_mismatch

from autotunectl.options import verb
from autotunectl.session import CLIENT_NAME, Session


@verb("version")
def command(session: Session) -> None:
    """Show the versions of client and daemon."""
    daemon_version: str | None
    with session.client() as client:
        try:
            daemon_version = client.info().version
        except DaemonNotRunning:
            daemon_version = None
    if session.json:
        session.write_json({"client_version": __version__, "daemon_version": daemon_version})
        return
    session.write(render(__version__, daemon_version))
    if daemon_version is not None and (warning := version_mismatch(daemon_version, CLIENT_NAME)):
        session.note(warning.message)


def render(client_version: str, daemon_version: str | None) -> str:
    """Both versions, in two lines."""
    return f"autotunectl  {client_version}\nautotuned    {daemon_version or 'not running'}\n"
