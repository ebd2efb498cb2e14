"""Server-sent events as bytes, for every dialect that streams them."""

from __future__ import annotations

import msgspec

MEDIA_TYPE = b"text/event-stream; charset=utf-8"


def data_event(value: object) -> bytes:
    """An event that carries ``value`` as JSON."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def waiting_comment(position: int) -> bytes:
    """A line that readers skip; it keeps clients and proxies from giving up."""
    return b": queued position=%d\n\n" % position if position else b": working\n\n"
