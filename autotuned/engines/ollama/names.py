"""Names of models as Ollama takes them, and as it lists them.

``engine`` finds what was pulled by them, ``pulling`` the registry. Invariant: pure.
"""

from __future__ import annotations

import ipaddress

from autotuned.engines.stores.ollama import PUBLIC_NAMESPACE
from autotuned.engines.stores.registry_names import PUBLIC_HOST, RegistryName, registry_name


def listed_name(text: str) -> str:
    """The name under which the server lists what it pulls as ``text``: "qwen3" is "qwen3:latest"."""
    name = _name(text)
    if name is None:
        return text
    own = f"{name.model}:{name.tag}"
    # To the server "ollama.com" is a host like any other.
    if name.host.lower() != PUBLIC_HOST:
        return f"{name.host}/{name.namespace}/{own}"
    return own if name.namespace.lower() == PUBLIC_NAMESPACE else f"{name.namespace}/{own}"


def registry_host(text: str) -> str:
    """The host, with its port where it has one, that a pull of this name asks."""
    name = _name(text)
    return name.host if name else PUBLIC_HOST


def is_on_this_machine(host: str) -> bool:
    """Whether a host, with or without a port, is a loopback address for certain."""
    name, _, port = host.rpartition(":")
    name = (name if name and port.isdecimal() else host).strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _name(text: str) -> RegistryName | None:
    """The parts of a name; the server takes a scheme before it and leaves it out."""
    return registry_name(text.strip().rpartition("://")[2])
