"""Every error that a user of the client library can meet, as one tree, and where each comes from.

    AutotuneError
      FieldInvalid         FIELD_INVALID        the request is malformed
      Unsupported          UNSUPPORTED          well formed, but this daemon or engine cannot
      ModelNotFound        MODEL_NOT_FOUND
      ModelInvalid         MODEL_INVALID        the file is damaged or of an unknown kind
      ModelLoadFailed      MODEL_LOAD_FAILED
      ContextTooLong       CONTEXT_TOO_LONG     prompt and reply do not fit
      WouldSwap            WOULD_SWAP           the load would push memory to disk
      QueueFull            QUEUE_FULL           has ``retry_seconds``
      EngineUnreachable    ENGINE_UNREACHABLE   the engine died or hangs
      StorageFull          STORAGE_FULL
      ModelTooLarge        MODEL_TOO_LARGE      a download would not fit into the machine's memory
      SourceUnreachable    SOURCE_UNREACHABLE   where a model comes from does not answer, or not sensibly
      SourceDenied         SOURCE_DENIED        it wants a token, or somebody's consent
      DownloadCorrupt      DOWNLOAD_CORRUPT     what came is not what was promised
      MessageTooLarge      MESSAGE_TOO_LARGE    more than 64 MiB in one message
      Unauthenticated      UNAUTHENTICATED
      KeyRevoked           KEY_REVOKED
      DeadlineExceeded     DEADLINE_EXCEEDED
      Cancelled            CANCELLED            this side ended the call, in another thread
      ShuttingDown         SHUTTING_DOWN
      Internal             INTERNAL
      DaemonUnreachable    DAEMON_UNREACHABLE   made here: the connection broke, or no daemon could start
        DaemonNotRunning   DAEMON_UNREACHABLE   made here: nobody serves the address
      AddressInvalid       ADDRESS_INVALID      made here: the address cannot be used
      VersionMismatch      VERSION_MISMATCH     made here: daemon and client differ

``from_rpc_error`` is the only place where a gRPC status becomes one of these. Switch on the class
or on ``reason``, never on the message. This module imports no gRPC until an error is converted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from google.rpc import status_pb2

DOMAIN = "autotune.v1"
_DETAILS_KEY = "grpc-status-details-bin"


class AutotuneError(Exception):
    """Base of all. ``message`` is one sentence for a person; ``metadata`` holds its facts as text."""

    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})


class FieldInvalid(AutotuneError):
    """A field of the request is missing or out of range; ``metadata["field"]`` names it."""

    default_reason = "FIELD_INVALID"


class Unsupported(AutotuneError):
    """The request is well formed, but this daemon or this engine cannot carry it out."""

    default_reason = "UNSUPPORTED"


class ModelNotFound(AutotuneError):
    """No model has this id; ``metadata["suggestion"]`` is the nearest id, or empty."""

    default_reason = "MODEL_NOT_FOUND"


class ModelInvalid(AutotuneError):
    """A model file is damaged or of a kind that no engine here runs."""

    default_reason = "MODEL_INVALID"


class ModelLoadFailed(AutotuneError):
    """The engine refused the model, or died while loading it."""

    default_reason = "MODEL_LOAD_FAILED"


class ContextTooLong(AutotuneError):
    """Prompt and reply do not fit into the model's context."""

    default_reason = "CONTEXT_TOO_LONG"


class WouldSwap(AutotuneError):
    """The load would push memory to disk, and the request forbids that."""

    default_reason = "WOULD_SWAP"


class QueueFull(AutotuneError):
    """Too many requests wait, or this one waited too long. ``retry_seconds``: when to try again."""

    default_reason = "QUEUE_FULL"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_seconds: float = 1.0,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_seconds = retry_seconds


class EngineUnreachable(AutotuneError):
    """The engine's process died, hangs, or broke off its answer. The next request gets a fresh one."""

    default_reason = "ENGINE_UNREACHABLE"


class StorageFull(AutotuneError):
    """The disk is full."""

    default_reason = "STORAGE_FULL"


class ModelTooLarge(AutotuneError):
    """A model that was to be downloaded would not fit into the machine; ask again with consent to get it.

    ``metadata`` has "requiredBytes", "capacityBytes" and, where one is known, a "suggestion" that fits.
    """

    default_reason = "MODEL_TOO_LARGE"


class SourceUnreachable(AutotuneError):
    """Where a model comes from does not answer, or not sensibly; the next pull goes on from what came."""

    default_reason = "SOURCE_UNREACHABLE"


class SourceDenied(AutotuneError):
    """Where a model comes from gives it to some only: a token or an agreement is missing."""

    default_reason = "SOURCE_DENIED"


class DownloadCorrupt(AutotuneError):
    """What was downloaded does not have the checksum or size that was promised; it was removed."""

    default_reason = "DOWNLOAD_CORRUPT"


class MessageTooLarge(AutotuneError):
    """A message is larger than 64 MiB."""

    default_reason = "MESSAGE_TOO_LARGE"


class Unauthenticated(AutotuneError):
    """The daemon wants an API key, or does not know this one."""

    default_reason = "UNAUTHENTICATED"


class KeyRevoked(AutotuneError):
    """The API key has been revoked."""

    default_reason = "KEY_REVOKED"


class DeadlineExceeded(AutotuneError):
    """The daemon did not answer in time."""

    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(AutotuneError):
    """The call was ended by another thread of this process."""

    default_reason = "CANCELLED"


class ShuttingDown(AutotuneError):
    """The daemon stops and takes no new work."""

    default_reason = "SHUTTING_DOWN"


class Internal(AutotuneError):
    """A defect of the daemon; its log has the details."""

    default_reason = "INTERNAL"


class DaemonUnreachable(AutotuneError):
    """Nobody serves the address, the daemon could not be started, or the connection broke."""

    default_reason = "DAEMON_UNREACHABLE"


class DaemonNotRunning(DaemonUnreachable):
    """Nobody serves the address: nothing that was asked for has happened."""


class AddressInvalid(AutotuneError):
    """The address has an unknown form, or its path is too long for a socket."""

    default_reason = "ADDRESS_INVALID"


class VersionMismatch(AutotuneError):
    """Daemon and client are of different versions. A warning: most calls still work."""

    default_reason = "VERSION_MISMATCH"


_BY_REASON: dict[str, type[AutotuneError]] = {
    kind.default_reason: kind for kind in AutotuneError.__subclasses__()
}


class RpcFailure(Protocol):
    """What ``grpc.Call`` and ``grpc.aio.AioRpcError`` have in common."""

    def code(self) -> object:
        """A ``grpc.StatusCode``."""

    def details(self) -> str | None:
        """The status message."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """The pairs of key and value."""


def from_rpc_error(error: RpcFailure, address: str = "") -> AutotuneError:
    """The typed error of a failed call. ``address`` is named where the daemon cannot be reached."""
    status = _rich_status(error)
    if status is not None and (typed := _from_rich_status(status)) is not None:
        return typed
    return _from_bare_status(getattr(error.code(), "name", "UNKNOWN"), error.details() or "", address)


@contextmanager
def encoding_checked(field: str) -> Iterator[None]:
    """Turns what protobuf raises for text that is no Unicode, or a number out of range, into FieldInvalid.

    Wrap the building of a message in it; ``field`` names what was being built.
    """
    try:
        yield
    except UnicodeEncodeError as problem:
        raise FieldInvalid(
            f"{field}: the text holds a lone surrogate at position {problem.start}, which is no character; "
            "send valid Unicode.",
            metadata={"field": field},
        ) from problem
    except (ValueError, TypeError) as problem:
        raise FieldInvalid(f"{field}: {problem}", metadata={"field": field}) from problem


def _rich_status(error: RpcFailure) -> status_pb2.Status | None:
    """The ``google.rpc.Status`` of the trailing metadata, if there is a readable one."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415  # only when something failed
    from google.rpc import status_pb2  # noqa: PLC0415  # the same

    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _from_rich_status(status: status_pb2.Status) -> AutotuneError | None:
    from google.rpc import error_details_pb2  # noqa: PLC0415  # only when something failed

    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
    if info.domain != DOMAIN:
        return None
    kind = _BY_REASON.get(info.reason, AutotuneError)
    if kind is QueueFull:
        wait_seconds = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        return QueueFull(status.message, metadata=info.metadata, retry_seconds=wait_seconds or 1.0)
    return kind(status.message, reason=info.reason, metadata=info.metadata)


def _from_bare_status(code: str, details: str, address: str) -> AutotuneError:
    """A status that no daemon code made: the transport's own, or a defect's."""
    if code == "UNAVAILABLE":
        return _unavailable(details, address)
    if code == "CANCELLED" and not any(words in details for words in _CANCELLED_HERE):
        # A server that closes ends what it had not taken up yet in this way.
        return ShuttingDown(
            "The daemon stopped before it took the call; send it again.",
            metadata={"code": code, "details": details},
        )
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in details:
        return MessageTooLarge(
            f"The message is larger than 64 MiB ({details}); send less at once.",
            metadata={"details": details},
        )
    if code in {"INTERNAL", "UNKNOWN"} and "serializing request" in details:
        # gRPC could not encode what we sent ("serializing"), or the daemon decode it ("deserializing").
        return FieldInvalid(
            f"The request could not be encoded ({details}); send valid Unicode and numbers in range.",
            metadata={"details": details},
        )
    sentence, kind = _BARE.get(code, ("The daemon failed ({details}); its log has more.", Internal))
    return kind(sentence.format(details=details), metadata={"code": code, "details": details})


_CANCELLED_HERE = ("Locally cancelled", "Channel closed")
_BARE: dict[str, tuple[str, type[AutotuneError]]] = {
    "DEADLINE_EXCEEDED": (
        'The daemon did not answer in time; try again, or look at it with "autotunectl status".',
        DeadlineExceeded,
    ),
    "CANCELLED": ("The call was cancelled.", Cancelled),
    "UNIMPLEMENTED": (
        'The running daemon does not know this call; stop it with "autotunectl stop" and try again.',
        Unsupported,
    ),
    "UNAUTHENTICATED": ("The daemon wants an API key ({details}).", Unauthenticated),
    "PERMISSION_DENIED": ("The daemon refused the API key ({details}).", Unauthenticated),
    "INVALID_ARGUMENT": ("The daemon refused the request ({details}).", FieldInvalid),
}


_NOBODY_LISTENS = ("No such file or directory", "Connection refused", "Not a directory")


def _unavailable(details: str, address: str) -> DaemonUnreachable:
    metadata = {"address": address, "details": details}
    place = address or "its address"
    if "failed to connect" not in details:
        return DaemonUnreachable(
            'The connection to the daemon broke; look at it with "autotunectl status" and try again.',
            metadata=metadata,
        )
    if any(words in details for words in _NOBODY_LISTENS):
        return DaemonNotRunning(
            f'No daemon is running at {place}; start one with "autotunectl chat" or "autotuned".',
            metadata=metadata,
        )
    if "Permission denied" in details:
        return DaemonUnreachable(
            f"The daemon at {place} belongs to another user; unset AUTOTUNE_ADDRESS and AUTOTUNE_RUNTIME_DIR "
            "to use your own.",
            metadata=metadata,
        )
    return DaemonUnreachable(
        f"What listens at {place} does not answer as a daemon does; end that process and try again.",
        metadata=metadata,
    )
