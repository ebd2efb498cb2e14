"""Names of models as Ollama takes them, and as it lists them.

``engine`` finds what was pulled by them, ``pulling`` the registry. Invariant: pure.
"""

from __future__ import annotations

from autotuned.engines.stores.registry_names import PUBLIC_HOST, RegistryName, registry_name


def listed_name(text: str) -> str:
    """The name under which the server lists what it pulls as ``text``: "qwen3" is "qwen3:latest"."""
    name = _name(text)
    return text if name is None else name.shown


def registry_host(text: str) -> str:
    """The host, with its port where it has one, that a pull of this name asks."""
    name = _name(text)
    return name.host if name else PUBLIC_HOST


def _name(text: str) -> RegistryName | None:
    """The parts of a name; the server takes a scheme before it and leaves it out."""
    return registry_name(text.strip().rpartition("://")[2])
