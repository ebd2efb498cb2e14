"""Which registries and hubs may be asked without TLS: those of this machine, and those of the settings.

``downloads`` and ``ollama`` ask before they connect, or have a server do so. Invariant: pure; a host counts
as one of this machine only where its name alone says so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


def may_be_plain(host: str, insecure_hosts: Iterable[str]) -> bool:
    """Whether a host, with or without a port, may be asked without TLS; one that is named means all ports."""
    names = {host.lower(), _without_port(host).lower()}
    return is_on_this_machine(host) or not names.isdisjoint(each.lower() for each in insecure_hosts)


def is_on_this_machine(host: str) -> bool:
    """Whether a host, with or without a port, is a loopback address for certain."""
    name = _without_port(host).strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() else host
