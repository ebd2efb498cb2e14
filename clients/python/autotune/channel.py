"""Channels to the daemon, blocking and asyncio, and the metadata of every call. Clients make them here.

Invariant: a channel never uses a proxy and never waits long to connect again, so that a client
which outlives the daemon reaches the next one at once.
"""

from __future__ import annotations

import re

import grpc
import grpc.aio

from autotune.address import default_address, format_address, parse_address

MESSAGE_MAX_BYTES = 64 * 1024 * 1024
UNARY_DEADLINE_SECONDS = 10.0

OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.enable_http_proxy", 0),
    # A Unix socket has no host name to send as :authority.
    ("grpc.default_authority", "localhost"),
    # Until the next attempt a daemon that is back counts as gone. The default waits up to two minutes;
    # one on a Unix socket costs next to nothing.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 100),
    # Each client has its own connection: one that failed does not delay another.
    ("grpc.use_local_subchannel_pool", 1),
    # A generation must not run twice.
    ("grpc.enable_retries", 0),
)

Metadata = tuple[tuple[str, str], ...]

_UNPRINTABLE = re.compile(r"[^!-~]")
_LONGEST_NAME = 100


def resolved_address(address: str | None) -> str:
    """``address`` in its canonical form, or the default one. Raises AddressInvalid."""
    return default_address() if address is None else format_address(parse_address(address))


def open_channel(address: str) -> grpc.Channel:
    """A blocking channel; it connects on the first call."""
    return grpc.insecure_channel(address, options=OPTIONS)


def open_aio_channel(address: str) -> grpc.aio.Channel:
    """An asyncio channel for the running loop; it connects on the first call."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)


def client_metadata(client_name: str, client_version: str) -> Metadata:
    """Says who calls, as printable ASCII without spaces."""
    return program_metadata(f"{client_name or 'python'}/{client_version}")


def program_metadata(program: str) -> Metadata:
    """The same for a program by the name that it gives itself, at most 100 characters of it."""
    return (("autotune-client", _UNPRINTABLE.sub("-", program[:_LONGEST_NAME])),)
