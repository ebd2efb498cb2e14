"""How LM Studio stands, as words for a person.

``engine`` makes one after each look. Invariant: what is wrong has a finding with the step that mends it.
"""

from __future__ import annotations

from pathlib import Path

from autotuned.core.engine import EngineState, EngineStatus, Finding, Severity
from autotuned.engines.lmstudio.facts import NAME
from autotuned.engines.lmstudio.listing import Api
from autotuned.engines.lmstudio.rest import ServerGone

_LEFT_BY_THE_APP = (".lmstudio", ".lmstudio-home-pointer", ".cache/lm-studio")
VERSIONS = {
    Api.V0: "REST v0 (before 0.4.0)",
    Api.V1: "REST v1 (0.4.0 or newer)",
}
"""LM Studio does not tell its version; this is what its API says of it."""

OFF = EngineStatus(name=NAME, state=EngineState.OFF, detail="lmstudio.mode is off")


def is_installed(home: Path) -> bool:
    """Whether LM Studio was ever started by the user with this home."""
    return any((home / name).exists() for name in _LEFT_BY_THE_APP)


def ready(api: Api, url: str) -> EngineStatus:
    """The server answers."""
    old = Finding(
        code="lmstudio-old",
        severity=Severity.WARNING,
        subject=NAME,
        text="This LM Studio is older than 0.4.0: it loads models with a context of its own choice, and "
        "cannot be told to unload them.",
        advice="Update LM Studio.",
    )
    return EngineStatus(
        name=NAME,
        state=EngineState.READY,
        version=VERSIONS[api],
        address=url,
        findings=(old,) if api is Api.V0 else (),
    )


def unreachable(problem: Exception, url: str, *, is_expected: bool) -> EngineStatus:
    """Nobody answers, or not as wished. Where no LM Studio is to be that is nothing to report."""
    if not isinstance(problem, ServerGone):
        finding = Finding(
            code="lmstudio-refuses",
            severity=Severity.WARNING,
            subject=NAME,
            text=f"LM Studio at {url} cannot be used: {problem}.",
        )
        state = EngineState.UNREACHABLE
    elif is_expected:
        finding = Finding(
            code="lmstudio-stopped",
            severity=Severity.INFO,
            subject=NAME,
            text=f"No server of LM Studio answers at {url}.",
            advice='Start it with "lms server start" or in the app (Developer), or correct lmstudio.url.',
        )
        state = EngineState.UNREACHABLE
    else:
        detail = f"nothing answers at {url}, and the home folder has no trace of it"
        return EngineStatus(name=NAME, state=EngineState.NOT_INSTALLED, address=url, detail=detail)
    return EngineStatus(name=NAME, state=state, address=url, detail=str(problem), findings=(finding,))
