"""Where a server is, and how one shows that one may use it.

Engines make one for each server; ``http`` connects to it. Invariant: a token is never part of a text
that is logged or shown.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
# How asyncio writes several failures as one: an address of the host each.
_NUMBER = re.compile(r"\[Errno (\d+)\]")


class EndpointInvalid(ValueError):
    """A URL that names no server. The message says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server on a Unix socket (``unix_path``), or on TCP.

    ``base_path`` stands before every target; ``bearer_token`` goes along where it is not "".
    """

    unix_path: str = ""
    host: str = "localhost"
    port: int = 0
    tls: bool = False
    base_path: str = ""
    bearer_token: str = field(default="", repr=False)

    @classmethod
    def unix(cls, path: str | Path) -> Endpoint:
        """A server on a Unix socket."""
        return cls(unix_path=str(path))

    @classmethod
    def of_url(cls, url: str, bearer_token: str = "") -> Endpoint:
        """The server of an http or https URL. Raises ``EndpointInvalid``."""
        if "@" in url:
            # Not shown, whatever else is wrong with it.
            raise EndpointInvalid("a URL with a user or a password in it would show up in logs")
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = DEFAULT_PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
        except ValueError as error:
            raise EndpointInvalid(f'"{url}" is no URL with a host and a port') from error
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or not port:
            raise EndpointInvalid(f'"{url}" is no http or https URL')
        if parts.query or parts.fragment:
            raise EndpointInvalid(f'"{url.partition("?")[0]}" has more behind it, which is never sent')
        if any(character <= " " or character >= "\x7f" for character in url + bearer_token):
            raise EndpointInvalid(f'"{url}" or its token has characters that no header may have')
        return cls(
            host=parts.hostname,
            port=port,
            tls=parts.scheme == "https",
            base_path=parts.path.rstrip("/"),
            bearer_token=bearer_token,
        )

    @property
    def url(self) -> str:
        """As a person writes it, without the token."""
        if self.unix_path:
            return f"unix:{self.unix_path}"
        scheme = "https" if self.tls else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[scheme] else f":{self.port}"
        return f"{scheme}://{host}{port}{self.base_path}"

    @cached_property
    def head(self) -> str:
        """The lines of a request's head that depend on the server alone."""
        host = "localhost" if self.unix_path else self.url.partition("://")[2].partition("/")[0]
        lines = f"Host: {host}\r\n"
        return lines + f"Authorization: Bearer {self.bearer_token}\r\n" if self.bearer_token else lines

    @cached_property
    def tls_context(self) -> ssl.SSLContext | None:
        """What a TLS connection is checked with; None for a plain one."""
        return ssl.create_default_context() if self.tls else None

    def at(self, base_path: str) -> Endpoint:
        """The same server with another base path."""
        return replace(self, base_path=base_path)


def connection_problem(error: OSError) -> str:
    """Why there is no connection, as a clause: what asyncio says names its own calls and addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (
            "it does not speak TLS there"
            if error.reason == "WRONG_VERSION_NUMBER"
            else f"TLS failed: {error}"
        )
    if isinstance(error, socket.gaierror):
        return "its host is not known"
    number = error.errno
    if number is None and (found := _NUMBER.search(str(error))):
        number = int(found[1])
    return os.strerror(number).lower() if number else str(error)
