"""Where LM Studio's server is and with which token one may use it.

``engine`` asks at its start, and again as long as something is wrong. Invariant: a token that others on
this machine can read is refused, and none is ever part of a sentence.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

from autotuned.core.settings import LmstudioSettings
from autotuned.engines.endpoint import Endpoint, EndpointInvalid

DEFAULT_URL = "http://127.0.0.1:1234"
TOKEN_VARIABLE = "LM_API_TOKEN"  # noqa: S105 - the name that LM Studio's documentation gives it
TOKEN_ADVICE = (
    "make one in LM Studio's server settings and name its file in lmstudio.token_file, "
    f"or set {TOKEN_VARIABLE}"
)
# A token has some dozens of bytes.
MAX_TOKEN_BYTES = 4096


class AccessProblem(Exception):
    """The settings lead to no server. The message is a clause that says what to change."""


def endpoint_of(settings: LmstudioSettings, environment: Mapping[str, str]) -> Endpoint:
    """The server of the settings. Reads the token's file. Raises ``AccessProblem``."""
    if settings.token_file:
        token = _token_of(Path(settings.token_file))
    else:
        token = environment.get(TOKEN_VARIABLE, "").strip()
    try:
        return Endpoint.of_url(settings.url or DEFAULT_URL, token)
    except EndpointInvalid as error:
        raise AccessProblem(f"lmstudio.url is of no use: {error}") from error


def is_here(endpoint: Endpoint) -> bool:
    """Whether the server is on this machine."""
    if endpoint.host == "localhost":
        return True
    try:
        return ip_address(endpoint.host).is_loopback
    except ValueError:
        return False


def _token_of(path: Path) -> str:
    try:
        path = path.expanduser()
        # Not to wait for whoever writes into a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AccessProblem(f'lmstudio.token_file "{path}" cannot be read ({reason}); correct it') from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AccessProblem(f'lmstudio.token_file "{path}" is not a regular file; name one')
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise AccessProblem(
                f'lmstudio.token_file "{path}" is open to others; run "chmod 600 {path}" so that its owner '
                "alone can read it"
            )
        content = os.read(descriptor, MAX_TOKEN_BYTES + 1)
    finally:
        os.close(descriptor)
    token = content.decode(errors="replace").strip()
    if not token or len(content) > MAX_TOKEN_BYTES or not token.isascii():
        raise AccessProblem(f'lmstudio.token_file "{path}" holds no token; put one line with it there')
    return token
