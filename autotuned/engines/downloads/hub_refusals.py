"""What a hub, or whatever answers in its place, says instead of a file: an error, or a reason to try again.

``huggingface`` and ``hub_access`` use it in the worker. Invariant: what may pass by itself is
``Interrupted``; everything else is a ``DownloadFailure`` with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from autotuned.engines.downloads.patience import Interrupted, wished_seconds
from autotuned.engines.downloads.protocol import DownloadFailure

_BUSY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_MAX_TEXT = 120
_RATE_LIMIT = re.compile(r'"[^"]*";r=0;t=(\d{1,9})')


def refusal(
    status: int, headers: Mapping[str, str], name: str, endpoint: str
) -> DownloadFailure | Interrupted:
    """What a status of 400 or more means for the repository ``name`` of the hub at ``endpoint``.

    A hub says 401 to who has no token also for what does not exist, and not always in a header which it is.
    """
    code = headers.get("X-Error-Code", "")
    said = " ".join(headers.get("X-Error-Message", "").split())[:_MAX_TEXT]
    if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Interrupted(f"the hub is busy ({_status_text(status)})", _wish_seconds(headers))
    if code == "GatedRepo":
        return _denied(
            f'"{name}" is given to those who accept its terms; accept them at {endpoint}/{name} and set '
            'HF_TOKEN to a token of that account, or save one with "hf auth login".'
        )
    if said.startswith("Invalid credentials"):
        return _denied(
            f"{endpoint} does not know the token that was sent; set HF_TOKEN to a valid one, or save one "
            'with "hf auth login".'
        )
    if code or status in {HTTPStatus.NOT_FOUND, HTTPStatus.UNAUTHORIZED}:
        return DownloadFailure("MODEL_NOT_FOUND", _missing(code, name, endpoint))
    reason = f"{_status_text(status)}{f': {said}' if said else ''}"
    if status == HTTPStatus.FORBIDDEN:
        return _denied(
            f'{endpoint} does not give "{name}" to you ({reason}); set HF_TOKEN to a token that may read it, '
            'or save one with "hf auth login".'
        )
    return DownloadFailure(
        "SOURCE_UNREACHABLE",
        f'{endpoint} answers "{reason}" for "{name}"; check pull.huggingface_url and HF_ENDPOINT.',
    )


def connection_problem(error: Exception, host: str) -> str:
    """A clause for what an HTTP library raised: no connection, no answer, or one that broke off."""
    text = " ".join(str(error).split())[:_MAX_TEXT] or type(error).__name__
    if "Timeout" in type(error).__name__:
        return f"{host} is silent"
    if type(error).__name__ == "ConnectError":
        return f"there is no connection to it ({text})"
    return f"the connection to {host} broke ({text})"


def _denied(message: str) -> DownloadFailure:
    return DownloadFailure("SOURCE_DENIED", message)


def _missing(code: str, name: str, endpoint: str) -> str:
    if code == "EntryNotFound":
        return f'"{name}" does not have the file any more that it has just named; pull again.'
    if code == "RevisionNotFound":
        return f'"{name}" has no branch "main", which is what is downloaded; choose another repository.'
    return (
        f'There is no repository "{name}" at {endpoint}, or it is private; check the name, or set HF_TOKEN '
        "to a token that may read it."
    )


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _wish_seconds(headers: Mapping[str, str]) -> float:
    """Seconds that the hub asks to wait: ``Retry-After``, or the reset of a limit that is used up, or 0."""
    if used_up := _RATE_LIMIT.search(headers.get("RateLimit", "")):
        return float(used_up[1])
    return wished_seconds(headers.get("Retry-After", ""))
