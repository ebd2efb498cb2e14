"""Tells the service manager how the daemon stands: systemd's ``sd_notify`` protocol.

``daemon`` calls it at the start and the end. Invariant: it never raises and never waits long; where
no manager asked (NOTIFY_SOCKET is unset), it does nothing.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping

_log = logging.getLogger(__name__)

_SEND_SECONDS = 1.0


def notify(state: str, environment: Mapping[str, str]) -> None:
    """Sends ``state``, one or more lines such as "READY=1" or "STATUS=2 models loaded"."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # how the variable writes the abstract name space of Linux
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_SEND_SECONDS)
            sender.sendto(state.encode("utf-8", "replace"), address)
    except (OSError, ValueError) as error:
        _log.warning("the service manager was not told: %s", error)
