from __future__ import annotations

import json

import pytest
from autotune import errors
from autotune_shim.exchange import RequestInvalid
from autotune_shim.openai.errors import refuse

EXPECTED = {
    "FieldInvalid": (400, "invalid_request_error", "invalid_value"),
    "Unsupported": (400, "invalid_request_error", "unsupported"),
    "ModelNotFound": (404, "invalid_request_error", "model_not_found"),
    "ModelInvalid": (400, "invalid_request_error", "model_invalid"),
    "ModelLoadFailed": (503, "server_error", "model_load_failed"),
    "ContextTooLong": (400, "invalid_request_error", "context_length_exceeded"),
    "WouldSwap": (507, "server_error", "would_swap"),
    "QueueFull": (429, "rate_limit_error", "queue_full"),
    "EngineUnreachable": (503, "server_error", "engine_unreachable"),
    "StorageFull": (503, "server_error", "storage_full"),
    "ModelTooLarge": (507, "server_error", "model_too_large"),
    "SourceUnreachable": (503, "server_error", "source_unreachable"),
    "SourceDenied": (403, "permission_error", "source_denied"),
    "DownloadCorrupt": (503, "server_error", "download_corrupt"),
    "MessageTooLarge": (413, "invalid_request_error", "request_too_large"),
    "Unauthenticated": (401, "authentication_error", "invalid_api_key"),
    "KeyRevoked": (401, "authentication_error", "api_key_revoked"),
    "DeadlineExceeded": (504, "server_error", "deadline_exceeded"),
    "Cancelled": (503, "server_error", "cancelled"),
    "ShuttingDown": (503, "server_error", "shutting_down"),
    "Internal": (500, "server_error", "internal_error"),
    "DaemonUnreachable": (503, "server_error", "daemon_unreachable"),
    "AddressInvalid": (503, "server_error", "address_invalid"),
    "VersionMismatch": (503, "server_error", "version_mismatch"),
}


@pytest.mark.parametrize("kind", errors.AutotuneError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_client_has_its_status(kind):
    status, error_type, code = EXPECTED[kind.__name__]
    reply = refuse(kind("It went wrong; try again."))
    error = json.loads(reply.body)["error"]
    assert reply.status == status
    assert (error["message"], error["type"], error["code"]) == ("It went wrong; try again.", error_type, code)


def test_a_full_queue_says_when_to_come_back():
    reply = refuse(errors.QueueFull("Too many requests wait; try again soon.", retry_seconds=2.2))
    assert dict(reply.headers) == {b"retry-after": b"3"}
    assert dict(refuse(errors.QueueFull("x", retry_seconds=0.0)).headers) == {b"retry-after": b"1"}


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (errors.ModelLoadFailed("x"), False),
        (errors.WouldSwap("x"), False),
        (errors.ModelTooLarge("x"), False),
        (errors.SourceDenied("x"), False),
        (errors.SourceUnreachable("x"), True),
        (errors.Internal("x"), False),
        (errors.EngineUnreachable("x"), True),
        (errors.DaemonUnreachable("x"), True),
    ],
)
def test_what_would_fail_again_asks_not_to_be_retried(error, retried):
    assert ((b"x-should-retry", b"false") not in refuse(error).headers) is retried


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("sampling.temperature", "temperature"),
        ("chat.messages[2].parts[0]", "messages"),
        ("chat.tools[0].parameters_json", "tools"),
        ("chat.tool_choice.name", "tool_choice"),
        ("max_reply_tokens", "max_tokens"),
        ("stop_sequences", "stop"),
        ("response_format.schema_json", "response_format"),
        ("top_logprobs_count", "top_logprobs"),
        ("raw_prompt.prompt", "prompt"),
        ("engine", None),
        ("", None),
    ],
)
def test_a_field_of_the_wire_is_told_by_its_openai_name(field, param):
    error = errors.FieldInvalid("It is wrong; use another.", metadata={"field": field})
    assert json.loads(refuse(error).body)["error"]["param"] == param


def test_model_and_context_errors_name_their_parameter():
    assert json.loads(refuse(errors.ModelNotFound("x")).body)["error"]["param"] == "model"
    assert json.loads(refuse(errors.WouldSwap("x")).body)["error"]["param"] == "model"
    assert json.loads(refuse(errors.ContextTooLong("x")).body)["error"]["param"] == "messages"


def test_a_reason_from_the_future_is_internal():
    reply = refuse(errors.AutotuneError("Something new.", reason="NEW_REASON"))
    assert reply.status == 500
    assert json.loads(reply.body)["error"]["message"] == "Something new."


def test_a_request_error_keeps_its_words():
    error = RequestInvalid("n: too many.", field="n", code="unsupported_value")
    reply = refuse(error)
    assert reply.status == 400
    assert json.loads(reply.body)["error"] == {
        "message": "n: too many.",
        "type": "invalid_request_error",
        "param": "n",
        "code": "unsupported_value",
    }


def test_an_unexpected_exception_shows_nothing_of_itself():
    reply = refuse(KeyError("secret path"))
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert json.loads(reply.body)["error"]["code"] == "internal_error"
