"""A server that speaks OpenAI's dialect, as an entry of ``openai.upstreams`` names it.

    lab=https://models.example.org/v1 token=env:LAB_TOKEN slots=8

``config`` checks every entry with it, the engine makes its servers from it. Invariant: an entry says
where a token comes from, never the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

ENGINE_NAMES = frozenset({"llamacpp", "mlx", "ollama", "lmstudio"})
"""The engines that are built in; none of their names can be given to a server."""

MOST_SLOTS = 1024
SHOWN_CHARACTERS = 60
LONGEST_NAME = 32
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
_NAME_CHARACTERS = _LETTERS | frozenset("0123456789_-")
_FORM = '"NAME=URL [token=env:VARIABLE|token=file:/PATH] [slots=NUMBER]"'


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where a bearer token is read: an environment variable, or a file of its owner alone."""

    kind: str  # "env" or "file"
    place: str

    @property
    def text(self) -> str:
        """As the entry has it."""
        return f"{self.kind}:{self.place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One server. ``slots_count`` 0: as many as the server tells. Equals have one ``name``."""

    name: str
    url: str
    token_source: TokenSource | None = None
    slots_count: int = 0


def parse_upstream(entry: str) -> Upstream:
    """The server of an entry. Raises ``ValueError`` with what is wrong in a sentence."""
    first, *words = entry.split() or [""]
    name, equals, url = first.partition("=")
    if not equals:
        # With an "@" it may be a URL that has a password in it.
        given = f", not {_shown(entry)}" if "@" not in entry else ""
        raise ValueError(f"an upstream is written {_FORM}{given}.")
    _check_name(name)
    _check_url(name, url)
    source, slots_count, seen = None, 0, set()
    for word in words:
        key, _, value = word.partition("=")
        if key in seen:
            raise ValueError(f'the upstream "{name}" has {key}= twice; leave one of them out.')
        seen.add(key)
        if key == "token":
            source = _token_source(name, value)
        elif key == "slots":
            slots_count = _slots_count(name, value)
        else:
            raise ValueError(
                f'the upstream "{name}" has {_shown(word)}, which is neither token= nor slots=; '
                f"it is written {_FORM}."
            )
    return Upstream(name=name, url=url, token_source=source, slots_count=slots_count)


def _check_name(name: str) -> None:
    if name[:1] not in _LETTERS or not _NAME_CHARACTERS.issuperset(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"an upstream's name has lower-case letters, digits, - and _, and begins with a letter, "
            f"not {_shown(name)}."
        )
    if name in ENGINE_NAMES:
        raise ValueError(f'an upstream cannot be called "{name}", which is an engine; choose another name.')


def _check_url(name: str, url: str) -> None:
    problem = ""
    if "@" in url:
        # Not shown, whatever else is wrong with it: it is a secret.
        raise ValueError(
            f'the URL of the upstream "{name}" has a user or a password in it; '
            "take token=env:VARIABLE or token=file:PATH."
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        problem = "is no URL"
    else:
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            problem = "is no http or https URL"
        elif parts.query or parts.fragment:
            problem = 'has a "?" or a "#" in it'
        elif not url.isascii() or not url.isprintable():
            problem = "has characters that no URL has"
    if problem:
        raise ValueError(
            f'the URL of the upstream "{name}" {problem}: {_shown(url)}; '
            'write one like "http://127.0.0.1:8080/v1".'
        )


def _token_source(name: str, value: str) -> TokenSource:
    kind, _, place = value.partition(":")
    if kind == "env" and place.isascii() and place.isidentifier():
        return TokenSource(kind, place)
    if kind == "file" and place.startswith(("/", "~")) and "\0" not in place:
        return TokenSource(kind, place)
    # Not shown: it may be the token itself.
    raise ValueError(
        f'the token of the upstream "{name}" is neither env:VARIABLE nor file:/WHOLE/PATH; '
        "put it into a variable or a file and name that."
    )


def _slots_count(name: str, value: str) -> int:
    is_number = value.isascii() and value.isdecimal() and len(value) <= len(str(MOST_SLOTS))
    if is_number and 1 <= int(value) <= MOST_SLOTS:
        return int(value)
    raise ValueError(
        f'the slots of the upstream "{name}" are a whole number from 1 to {MOST_SLOTS}, not {_shown(value)}.'
    )


def _shown(text: str) -> str:
    return f'"{text}"' if len(text) <= SHOWN_CHARACTERS else f'"{text[:SHOWN_CHARACTERS]}..."'
