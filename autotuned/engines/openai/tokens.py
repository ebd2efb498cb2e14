"""Bearer tokens, from where their owner keeps them.

``server`` reads one whenever it looks at its server, so that a token can be changed without a restart.
Invariants: a token is in no message; a file that others can read is not used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from autotuned.core.upstream import TokenSource

MOST_BYTES = 16 << 10


class TokenRefused(Exception):
    """There is no token to use. The message is a clause that says why, and what to do."""


def read_token(source: TokenSource | None, environment: Mapping[str, str]) -> str:
    """The token, "" where none is configured. Blocks. Raises ``TokenRefused``."""
    if source is None:
        return ""
    token = _of_file(source.place) if source.kind == "file" else environment.get(source.place, "")
    token = token.strip()
    if not token:
        raise TokenRefused(f"{source.text} holds no token; put it there")
    if not all("!" <= character <= "~" for character in token):
        raise TokenRefused(f"{source.text} holds characters that no token has; write the token alone there")
    return token


def _of_file(place: str) -> str:
    try:
        path = Path(place).expanduser()
        if path.exists() and not path.is_file():
            raise TokenRefused(f"{path} is no file; name the file that holds the token")
        with path.open("rb") as stream:
            # Of the file that is read, whatever the path leads to meanwhile.
            mode = os.fstat(stream.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise TokenRefused(f'others can read the file of its token; run "chmod 600 {path}"')
            return stream.read(MOST_BYTES).decode("ascii", errors="replace")
    except OSError as error:
        raise TokenRefused(f"file:{place} cannot be read ({error.strerror}); put the token there") from error
    except RuntimeError as error:  # "~name" of nobody
        raise TokenRefused(f"file:{place} is in nobody's folder; write the whole path") from error
