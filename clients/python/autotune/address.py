"""Where the daemon serves. The daemon's configuration and every client take it from here.

Imports nothing heavy: it is on the path of every command. Invariant: one home folder has one
runtime folder, so that all clients of a user meet the same daemon.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from autotune.errors import AddressInvalid

SOCKET_NAME = "autotuned.sock"
SOCKET_PATH_MAX_BYTES = 103
"""What fits ``sun_path`` everywhere: macOS has 104 bytes with the final NUL, Linux 108."""

_SCHEME = "unix:"


def runtime_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of socket and lock.

    AUTOTUNE_RUNTIME_DIR, else XDG_RUNTIME_DIR/autotune, else one in the temporary folder that is
    named after user and home.
    """
    if chosen := environment.get("AUTOTUNE_RUNTIME_DIR"):
        return Path(chosen).absolute()
    if session := environment.get("XDG_RUNTIME_DIR"):
        return Path(session).absolute() / "autotune"
    home = environment.get("HOME") or str(Path.home())
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"autotune-{os.getuid()}-{digest}"


def socket_path(runtime: Path) -> Path:
    """The daemon's socket in its runtime folder. Raises AddressInvalid when the path is too long."""
    return checked_socket_path(runtime / SOCKET_NAME)


def checked_socket_path(path: Path) -> Path:
    """Returns ``path``; raises AddressInvalid when it is no text or cannot be bound."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="replace").decode()
        raise AddressInvalid(
            f"The socket path {shown} is not valid UTF-8; set AUTOTUNE_RUNTIME_DIR to a folder whose name "
            "is, such as /tmp/autotune.",
            metadata={"path": shown},
        ) from None
    size_bytes = len(os.fsencode(path))
    if size_bytes > SOCKET_PATH_MAX_BYTES:
        raise AddressInvalid(
            f"The socket path {path} has {size_bytes} bytes and the operating system takes "
            f"{SOCKET_PATH_MAX_BYTES}; set AUTOTUNE_RUNTIME_DIR to a shorter folder, such as /tmp/autotune.",
            metadata={"path": str(path), "bytes": str(size_bytes), "maxBytes": str(SOCKET_PATH_MAX_BYTES)},
        )
    return path


def default_address(environment: Mapping[str, str] = os.environ) -> str:
    """AUTOTUNE_ADDRESS, else the socket in the runtime folder, as ``unix:/path``.

    Raises AddressInvalid.
    """
    if chosen := environment.get("AUTOTUNE_ADDRESS"):
        return format_address(parse_address(chosen))
    return format_address(socket_path(runtime_directory(environment)))


def parse_address(address: str) -> Path:
    """The socket path of ``unix:/path`` (or ``unix:///path``). Raises AddressInvalid."""
    text = address.removeprefix(_SCHEME).removeprefix("//")
    if not address.startswith(_SCHEME) or not text.startswith("/"):
        raise AddressInvalid(
            f'The address "{address}" is not one that autotune knows; write unix:/path/to/{SOCKET_NAME}.',
            metadata={"address": address},
        )
    return checked_socket_path(Path(text))


def format_address(path: Path) -> str:
    """The address of a socket path."""
    return f"{_SCHEME}{path}"
