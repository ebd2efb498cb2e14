"""The Python client of the autotune daemon.

    import autotune

    autotune.ensure_daemon()
    with autotune.Client() as client:
        print(client.chat("What is the capital of France?").text)

This is the whole public API; the wire messages are in ``autotune.v1``. Names load on first use,
because the daemon and fast commands import ``autotune.v1`` and ``autotune.address`` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autotune.address import default_address, runtime_directory, socket_path
    from autotune.aio_client import AsyncClient
    from autotune.chat import Reply, ReplyBuilder, chat_request, message, prewarm_request
    from autotune.client import Client
    from autotune.errors import (
        AddressInvalid,
        AutotuneError,
        Cancelled,
        ContextTooLong,
        DaemonNotRunning,
        DaemonUnreachable,
        DeadlineExceeded,
        DownloadCorrupt,
        EngineUnreachable,
        FieldInvalid,
        Internal,
        KeyRevoked,
        MessageTooLarge,
        ModelInvalid,
        ModelLoadFailed,
        ModelNotFound,
        ModelTooLarge,
        QueueFull,
        ShuttingDown,
        SourceDenied,
        SourceUnreachable,
        StorageFull,
        Unauthenticated,
        Unsupported,
        VersionMismatch,
        WouldSwap,
    )
    from autotune.registry import RegistryList
    from autotune.requests import ModelList
    from autotune.start import ensure_daemon
    from autotune.version import __version__, version_mismatch

_HOMES = {
    "autotune.address": ("default_address", "runtime_directory", "socket_path"),
    "autotune.aio_client": ("AsyncClient",),
    "autotune.chat": ("Reply", "ReplyBuilder", "chat_request", "message", "prewarm_request"),
    "autotune.client": ("Client",),
    "autotune.errors": (
        "AddressInvalid",
        "AutotuneError",
        "Cancelled",
        "ContextTooLong",
        "DaemonNotRunning",
        "DaemonUnreachable",
        "DeadlineExceeded",
        "DownloadCorrupt",
        "EngineUnreachable",
        "FieldInvalid",
        "Internal",
        "KeyRevoked",
        "MessageTooLarge",
        "ModelInvalid",
        "ModelLoadFailed",
        "ModelNotFound",
        "ModelTooLarge",
        "QueueFull",
        "ShuttingDown",
        "SourceDenied",
        "SourceUnreachable",
        "StorageFull",
        "Unauthenticated",
        "Unsupported",
        "VersionMismatch",
        "WouldSwap",
    ),
    "autotune.registry": ("RegistryList",),
    "autotune.requests": ("ModelList",),
    "autotune.start": ("ensure_daemon",),
    "autotune.version": ("__version__", "version_mismatch"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AddressInvalid",
    "AsyncClient",
    "AutotuneError",
    "Cancelled",
    "Client",
    "ContextTooLong",
    "DaemonNotRunning",
    "DaemonUnreachable",
    "DeadlineExceeded",
    "DownloadCorrupt",
    "EngineUnreachable",
    "FieldInvalid",
    "Internal",
    "KeyRevoked",
    "MessageTooLarge",
    "ModelInvalid",
    "ModelList",
    "ModelLoadFailed",
    "ModelNotFound",
    "ModelTooLarge",
    "QueueFull",
    "RegistryList",
    "Reply",
    "ReplyBuilder",
    "ShuttingDown",
    "SourceDenied",
    "SourceUnreachable",
    "StorageFull",
    "Unauthenticated",
    "Unsupported",
    "VersionMismatch",
    "WouldSwap",
    "__version__",
    "chat_request",
    "default_address",
    "ensure_daemon",
    "message",
    "prewarm_request",
    "runtime_directory",
    "socket_path",
    "version_mismatch",
]


def __getattr__(name: str) -> object:
    """Imports the module that owns ``name``."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'autotune' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
