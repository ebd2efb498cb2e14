"""Where Ollama's server is: as configured, as its own environment says, or where it always is.

``engine`` asks once. Invariant: what comes out can be connected to; a wildcard, which only a server can
listen on, becomes the loopback interface.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from autotuned.core.engine import Finding, Severity
from autotuned.engines.endpoint import Endpoint, EndpointInvalid

DEFAULT_PORT = 11434
# "localhost" may be an IPv6 address, where the server does not listen.
DEFAULT_HOST = "127.0.0.1"
LOOPBACK_OF_WILDCARD = {"0.0.0.0": DEFAULT_HOST, "::": "::1", "": DEFAULT_HOST}  # noqa: S104 - to avoid it


def endpoint_of(url: str, environment: Mapping[str, str]) -> Endpoint:
    """The server at ``url``; where that is "", the one of ``OLLAMA_HOST``, or the usual one.

    Raises ``EndpointInvalid`` for a ``url`` that names no server; a useless ``OLLAMA_HOST`` is passed over.
    """
    if url:
        return Endpoint.of_url(_completed(url))
    try:
        return Endpoint.of_url(_completed(environment.get("OLLAMA_HOST", "").strip(" \"'")))
    except EndpointInvalid:
        return Endpoint(host=DEFAULT_HOST, port=DEFAULT_PORT)


def is_loopback(endpoint: Endpoint) -> bool:
    """Whether the server is on this machine for certain."""
    if endpoint.unix_path:
        return True
    try:
        return ipaddress.ip_address(endpoint.host).is_loopback
    except ValueError:
        return endpoint.host == "localhost"


def listen_address(endpoint: Endpoint) -> str:
    """What a server is told in ``OLLAMA_HOST`` to listen there."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"


def url_finding(error: EndpointInvalid) -> Finding:
    """What is said where the configured address cannot be used."""
    return Finding(
        code="ollama-url-invalid",
        severity=Severity.PROBLEM,
        subject="ollama",
        text=f"The address of Ollama cannot be used: {error}.",
        advice="Set ollama.url to something like http://127.0.0.1:11434.",
    )


def _completed(text: str) -> str:
    """The URL with its scheme, host and port, as Ollama reads what is left out of them."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    authority, slash, path = rest.partition("/")
    host, port = _split(authority)
    host = LOOPBACK_OF_WILDCARD.get(host, host)
    if not port and not separator:
        port = str(DEFAULT_PORT)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}{':' if port else ''}{port}{slash}{path}"


def _split(authority: str) -> tuple[str, str]:
    """Host and port; an IPv6 address may stand in brackets, or alone without a port."""
    if authority.startswith("["):
        host, _, rest = authority[1:].partition("]")
        return host, rest.removeprefix(":")
    if authority.count(":") > 1:
        return authority, ""
    host, _, port = authority.partition(":")
    return host, port
