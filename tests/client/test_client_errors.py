"""Every status becomes one typed error, whichever client met it."""

from __future__ import annotations

import socket
import threading
from contextlib import closing

import grpc
import pytest
from autotune import errors
from autotune.aio_client import AsyncClient
from autotune.chat import chat_request
from autotune.client import Client
from autotune.errors import AutotuneError, encoding_checked
from autotune.v1 import chat_pb2, inference_service_pb2
from grpc_status import rpc_status

from autotuned.core import errors as core_errors
from tests.fakes.fake_daemon import FakeDaemon, fail_with
from tests.fakes.fake_messages import rich_status

DEADLINE_SECONDS = 10.0

DAEMON_REASONS = [
    (grpc.StatusCode.INVALID_ARGUMENT, errors.FieldInvalid),
    (grpc.StatusCode.UNIMPLEMENTED, errors.Unsupported),
    (grpc.StatusCode.NOT_FOUND, errors.ModelNotFound),
    (grpc.StatusCode.FAILED_PRECONDITION, errors.ModelInvalid),
    (grpc.StatusCode.FAILED_PRECONDITION, errors.ModelLoadFailed),
    (grpc.StatusCode.INVALID_ARGUMENT, errors.ContextTooLong),
    (grpc.StatusCode.FAILED_PRECONDITION, errors.WouldSwap),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.QueueFull),
    (grpc.StatusCode.UNAVAILABLE, errors.EngineUnreachable),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.StorageFull),
    (grpc.StatusCode.FAILED_PRECONDITION, errors.ModelTooLarge),
    (grpc.StatusCode.UNAVAILABLE, errors.SourceUnreachable),
    (grpc.StatusCode.PERMISSION_DENIED, errors.SourceDenied),
    (grpc.StatusCode.DATA_LOSS, errors.DownloadCorrupt),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.MessageTooLarge),
    (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
    (grpc.StatusCode.PERMISSION_DENIED, errors.KeyRevoked),
    (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
    (grpc.StatusCode.UNAVAILABLE, errors.ShuttingDown),
    (grpc.StatusCode.INTERNAL, errors.Internal),
]


async def both(daemon: FakeDaemon) -> list[AutotuneError]:
    """What ``info`` raises in the blocking client, in the asyncio one, and what a stream raises in each."""
    caught = []
    with Client(daemon.address) as client:
        with pytest.raises(AutotuneError) as unary:
            client.info()
        with pytest.raises(AutotuneError) as stream:
            list(client.generate(chat_request("hello")))
        caught += [unary.value, stream.value]
    async with AsyncClient(daemon.address) as aio_client:
        with pytest.raises(AutotuneError) as unary:
            await aio_client.info()
        with pytest.raises(AutotuneError) as stream:
            async for _ in aio_client.generate(chat_request("hello")):
                pass
        caught += [unary.value, stream.value]
    return caught


@pytest.mark.parametrize(("code", "kind"), DAEMON_REASONS)
async def test_a_reason_of_the_daemon_becomes_its_class(daemon, code, kind):
    daemon.refusal = rich_status(code, kind.default_reason, "It failed; do this.", model="pocket")
    for error in await both(daemon):
        assert type(error) is kind
        assert error.message == str(error) == "It failed; do this."
        assert error.reason == kind.default_reason
        assert error.metadata == {"model": "pocket"}


def test_every_reason_of_the_daemon_has_a_class_of_that_name():
    for theirs in core_errors.AutotuneError.__subclasses__():
        if theirs.__module__ != core_errors.__name__:
            continue  # private to a wing
        ours = getattr(errors, theirs.__name__)
        assert ours.default_reason == theirs.reason


def test_the_classes_have_distinct_reasons():
    reasons = [kind.default_reason for kind in AutotuneError.__subclasses__()]
    assert len(set(reasons)) == len(reasons)


async def test_a_full_queue_says_when_to_try_again(daemon):
    daemon.refusal = rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "Full.", retry_seconds=7)
    assert [error.retry_seconds for error in await both(daemon)] == [7.0] * 4


async def test_a_reason_of_a_newer_daemon_keeps_its_name(daemon):
    daemon.refusal = rich_status(grpc.StatusCode.ABORTED, "MODEL_ASLEEP", "It sleeps.", model="pocket")
    for error in await both(daemon):
        assert type(error) is AutotuneError
        assert (error.reason, error.message) == ("MODEL_ASLEEP", "It sleeps.")


async def test_details_of_another_domain_are_not_ours(daemon):
    daemon.refusal = rich_status(
        grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "Elsewhere.", domain="example.com"
    )
    for error in await both(daemon):
        assert type(error) is errors.Internal
        assert error.metadata["code"] == "NOT_FOUND"


class BareFailure:
    """A status that no daemon code made."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata=()) -> None:
        self._parts = (code, details, metadata)

    def code(self):
        return self._parts[0]

    def details(self):
        return self._parts[1]

    def trailing_metadata(self):
        return self._parts[2]


@pytest.mark.parametrize(
    ("code", "details", "kind", "words"),
    [
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: connect: Connection refused (111)",
            errors.DaemonNotRunning,
            "No daemon is running at unix:/a;",
        ),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: connect: Permission denied (13)",
            errors.DaemonUnreachable,
            "The daemon at unix:/a belongs to another user;",
        ),
        ("UNAVAILABLE", "Socket closed", errors.DaemonUnreachable, "The connection to the daemon broke;"),
        (
            "RESOURCE_EXHAUSTED",
            "CLIENT: Sent message larger than max (9 vs. 8)",
            errors.MessageTooLarge,
            "64 MiB",
        ),
        ("RESOURCE_EXHAUSTED", "out of threads", errors.Internal, "out of threads"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", errors.DeadlineExceeded, "did not answer in time;"),
        ("CANCELLED", "Locally cancelled by application!", errors.Cancelled, "cancelled"),
        ("CANCELLED", "CANCELLED", errors.ShuttingDown, "stopped before it took the call;"),
        ("UNIMPLEMENTED", "Method not found!", errors.Unsupported, "autotunectl stop"),
        ("UNKNOWN", "Exception calling application: x", errors.Internal, "Exception calling application: x"),
        ("INTERNAL", "Exception serializing request!", errors.FieldInvalid, "valid Unicode"),
        ("INTERNAL", "Exception deserializing request!", errors.FieldInvalid, "valid Unicode"),
        ("INTERNAL", "Exception deserializing response!", errors.Internal, "deserializing response"),
        ("DATA_LOSS", "gone", errors.Internal, "gone"),
        ("UNAUTHENTICATED", "no key", errors.Unauthenticated, "no key"),
        ("PERMISSION_DENIED", "bad key", errors.Unauthenticated, "bad key"),
        ("INVALID_ARGUMENT", "bad", errors.FieldInvalid, "bad"),
    ],
)
def test_a_bare_status_becomes_the_error_that_fits(code, details, kind, words):
    error = errors.from_rpc_error(BareFailure(grpc.StatusCode[code], details), "unix:/a")
    assert type(error) is kind
    assert words in error.message
    assert error.reason == kind.default_reason


@pytest.mark.parametrize(
    "metadata", [None, (), (("grpc-status-details-bin", b"\xff\xff"),), (("other", "x"),)]
)
def test_missing_or_damaged_details_leave_the_bare_status(metadata):
    failure = BareFailure(grpc.StatusCode.UNKNOWN, "odd", metadata)
    assert type(errors.from_rpc_error(failure)) is errors.Internal


async def test_nobody_at_the_address_is_daemon_not_running(tmp_path):
    class Nobody:
        address = f"unix:{tmp_path}/autotuned.sock"

    for error in await both(Nobody()):
        assert type(error) is errors.DaemonNotRunning
        assert error.message == (
            f'No daemon is running at {Nobody.address}; start one with "autotunectl chat" or "autotuned".'
        )
        assert error.metadata["address"] == Nobody.address


async def test_a_daemon_that_goes_away_in_mid_answer_is_daemon_unreachable(daemon):
    def script(request, context):
        yield inference_service_pb2.GenerateResponse(delta=inference_service_pb2.Delta(text="Once"))
        daemon.hold(context)

    daemon.script = script
    async with AsyncClient(daemon.address) as client:
        events = client.generate(chat_request("hello"))
        assert (await anext(events)).delta.text == "Once"
        daemon.stop()
        with pytest.raises(errors.DaemonUnreachable) as caught:
            await anext(events)
    assert not isinstance(caught.value, errors.DaemonNotRunning)


async def test_an_answer_that_breaks_off_yields_what_came_before_the_error(daemon):
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "ENGINE_UNREACHABLE", "The engine died.")
    daemon.script = fail_with(status, "Once ", "upon")
    async with AsyncClient(daemon.address) as client:
        events = client.generate(chat_request("hello"))
        assert [(await anext(events)).delta.text for _ in range(2)] == ["Once ", "upon"]
        with pytest.raises(errors.EngineUnreachable):
            await anext(events)


async def test_a_message_above_the_limit_is_refused_on_both_sides(daemon):
    huge = "x" * (64 * 1024 * 1024)
    request = inference_service_pb2.CountTokensRequest(text=huge)
    with Client(daemon.address) as client, pytest.raises(errors.MessageTooLarge, match="64 MiB"):
        client.count_tokens(request)
    async with AsyncClient(daemon.address) as aio_client:
        with pytest.raises(errors.MessageTooLarge, match="64 MiB"):
            await aio_client.count_tokens(request)


@pytest.mark.parametrize("text", ["\ud800", "bad \udcff byte"])
def test_a_lone_surrogate_is_a_bad_field(text):
    with pytest.raises(errors.FieldInvalid, match="lone surrogate") as caught:
        chat_request(text)
    assert caught.value.metadata == {"field": "text"}
    with pytest.raises(errors.FieldInvalid):
        chat_request("hello", model=text)
    with pytest.raises(errors.FieldInvalid):
        chat_request("hello", system=text)


def test_what_does_not_fit_a_field_is_a_bad_field():
    for bad in (lambda: chat_pb2.Part(text=5), lambda: inference_service_pb2.Sampling(top_k=2**40)):
        with pytest.raises(errors.FieldInvalid) as caught, encoding_checked("sampling"):
            bad()
        assert caught.value.message.startswith("sampling: ")


@pytest.mark.parametrize(
    "words", [b"HTTP/1.1 400 Bad\r\n\r\n", bytes(100), b""], ids=["http", "zeros", "silence"]
)
def test_something_else_at_the_address_is_told(tmp_path, words):
    path = tmp_path / "a.sock"
    told = threading.Event()

    def talk(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(words)
            told.wait(DEADLINE_SECONDS)

    with socket.socket(socket.AF_UNIX) as listener, closing(Client(f"unix:{path}")) as client:
        listener.bind(str(path))
        listener.listen()
        talker = threading.Thread(target=talk, args=(listener,))
        talker.start()
        with pytest.raises(errors.DaemonUnreachable) as caught:
            client.info()
        told.set()
        talker.join()
    assert not isinstance(caught.value, errors.DaemonNotRunning)
    assert caught.value.message == (
        f"What listens at unix:{path} does not answer as a daemon does; end that process and try again."
    )


def test_grpcs_own_reading_of_our_details_agrees():
    status = rich_status(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "No.", model="x")
    trailing = rpc_status.to_status(status).trailing_metadata
    error = errors.from_rpc_error(BareFailure(grpc.StatusCode.NOT_FOUND, "No.", trailing))
    assert type(error) is errors.ModelNotFound
    assert error.metadata == {"model": "x"}
