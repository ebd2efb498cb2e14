"""autotunectl doctor: what is wrong with daemon, engines, models and machine, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from autotune.errors import Unsupported
from autotune.v1 import engine_service_pb2
from autotune.version import version_mismatch

from autotunectl import exits
from autotunectl.json_output import enum_text, message_json
from autotunectl.options import verb
from autotunectl.output import PLAIN, Style, one_line
from autotunectl.session import CLIENT_NAME, Session

if TYPE_CHECKING:
    from autotune.client import Client

_Finding = engine_service_pb2.Finding
_INDENT = " " * 9


@verb("doctor")
def command(session: Session) -> int:
    """Say what is wrong, and what to do about it.

    The worst comes first: a problem is something that does not work, a warning something that is worse than
    it could be, an info something that is good to know. Exit status 1 when there is a problem, else 0.
    """
    with session.connect(warns=False) as client:
        found = examine(client)
    if session.json:
        session.write_json({"findings": [message_json(finding) for finding in found]})
    else:
        session.write(render(found, session.out_style))
    is_broken = any(finding.severity == _Finding.SEVERITY_PROBLEM for finding in found)
    return exits.FAILED if is_broken else exits.DONE


def examine(client: Client) -> list[_Finding]:
    """What the daemon finds, and whether its version is this program's; worst first.

    Raises AutotuneError.
    """
    own = version_finding(client.info().version)
    try:
        found = client.list_findings()
    except Unsupported:
        if own is None:
            raise
        own.severity = _Finding.SEVERITY_PROBLEM  # it is too old to be asked
        found = []
    own_findings = [own] if own else []
    return sorted([*own_findings, *found], key=lambda finding: -finding.severity)


def version_finding(daemon_version: str) -> _Finding | None:
    """What to say of a daemon of another version."""
    mismatch = version_mismatch(daemon_version, CLIENT_NAME)
    if mismatch is None:
        return None
    text, _, advice = mismatch.message.partition("; ")
    return _Finding(
        code="version-mismatch",
        severity=_Finding.SEVERITY_WARNING,
        subject="daemon",
        text=f"{text}.",
        advice=advice[:1].upper() + advice[1:],
    )


def render(findings: Iterable[_Finding], style: Style = PLAIN) -> str:
    """Each finding with what to do about it under it."""
    return "".join(_text(finding, style) for finding in findings) or "Nothing is wrong.\n"


def _text(finding: _Finding, style: Style) -> str:
    severity = enum_text(finding, "severity")
    padded = f"{severity:<{len(_INDENT)}}"
    coloured = {"problem": style.red, "warning": style.bold}.get(severity, style.dim)(padded)
    text = f"{coloured}{one_line(finding.subject)}: {one_line(finding.text)}\n"
    return text + (f"{_INDENT}{one_line(finding.advice)}\n" if finding.advice else "")
