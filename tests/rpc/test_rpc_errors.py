"""Every error of the tree as a status: code, reason, details, sentence."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from autotuned.core import errors
from autotuned.rpc.errors import status_of

CODE = grpc.StatusCode

GOLDEN = [
    (
        errors.FieldInvalid("top_k", "-1 is out of range."),
        CODE.INVALID_ARGUMENT,
        "FIELD_INVALID",
        "top_k: -1 is out of range.",
    ),
    (errors.Unsupported("No."), CODE.UNIMPLEMENTED, "UNSUPPORTED", "No."),
    (
        errors.ModelNotFound("pocked", "pocket"),
        CODE.NOT_FOUND,
        "MODEL_NOT_FOUND",
        'There is no model "pocked"; did you mean "pocket"? "autotunectl ls" lists the models.',
    ),
    (
        errors.ModelNotFound("zzz", ""),
        CODE.NOT_FOUND,
        "MODEL_NOT_FOUND",
        'There is no model "zzz"; "autotunectl pull zzz" downloads one of this name, if there is one. "autotunectl ls" lists the models.',
    ),
    (
        errors.ModelNotFound("zzz", "", away="ollama and lab"),
        CODE.NOT_FOUND,
        "MODEL_NOT_FOUND",
        'There is no model "zzz"; models of ollama and lab are missing, because they do not answer. '
        '"autotunectl ls" lists the models.',
    ),
    (
        errors.ModelNotFound("zzz", "", engine="ollama"),
        CODE.NOT_FOUND,
        "MODEL_NOT_FOUND",
        'The engine ollama has no model "zzz"; "autotunectl ls --engine ollama" lists its models.',
    ),
    (errors.ModelInvalid("Damaged."), CODE.FAILED_PRECONDITION, "MODEL_INVALID", "Damaged."),
    (errors.ModelLoadFailed("It died."), CODE.FAILED_PRECONDITION, "MODEL_LOAD_FAILED", "It died."),
    (
        errors.ContextTooLong(prompt_tokens=9000, context_tokens=8192),
        CODE.INVALID_ARGUMENT,
        "CONTEXT_TOO_LONG",
        "The prompt has 9,000 tokens and the context holds 8,192; "
        "shorten it to fewer than 8,192 tokens or use a model with a longer context.",
    ),
    (
        errors.ContextTooLong(prompt_tokens=9000, context_tokens=8192, at_least=True),
        CODE.INVALID_ARGUMENT,
        "CONTEXT_TOO_LONG",
        "The prompt has at least 9,000 tokens and the context holds 8,192; "
        "shorten it to fewer than 8,192 tokens or use a model with a longer context.",
    ),
    (
        errors.WouldSwap(
            "It needs 9 GiB.", required_bytes=9 << 30, available_bytes=4 << 30, fitting_context_tokens=2048
        ),
        CODE.FAILED_PRECONDITION,
        "WOULD_SWAP",
        "It needs 9 GiB.",
    ),
    (errors.QueueFull("Full.", retry_seconds=2.5), CODE.RESOURCE_EXHAUSTED, "QUEUE_FULL", "Full."),
    (errors.EngineUnreachable("Gone."), CODE.UNAVAILABLE, "ENGINE_UNREACHABLE", "Gone."),
    (errors.StorageFull("Full."), CODE.RESOURCE_EXHAUSTED, "STORAGE_FULL", "Full."),
    (
        errors.ModelTooLarge("Large.", required_bytes=9 << 30, capacity_bytes=4 << 30, suggestion="qwen3:4b"),
        CODE.FAILED_PRECONDITION,
        "MODEL_TOO_LARGE",
        "Large.",
    ),
    (errors.SourceUnreachable("Away."), CODE.UNAVAILABLE, "SOURCE_UNREACHABLE", "Away."),
    (errors.SourceDenied("A token."), CODE.PERMISSION_DENIED, "SOURCE_DENIED", "A token."),
    (errors.DownloadCorrupt("Not it."), CODE.DATA_LOSS, "DOWNLOAD_CORRUPT", "Not it."),
    (
        errors.ShuttingDown(),
        CODE.UNAVAILABLE,
        "SHUTTING_DOWN",
        "The daemon is shutting down; run the command again to start a new one.",
    ),
]


def detail(status, kind):
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            return message
    return None


@pytest.mark.parametrize(("error", "code", "reason", "sentence"), GOLDEN)
def test_each_error_has_its_code_reason_and_sentence(error, code, reason, sentence):
    status = status_of(error)
    assert status.code == code.value[0]
    assert status.message == sentence
    info = detail(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason, "autotune.v1")
    assert dict(info.metadata) == error.metadata


def test_a_full_queue_says_when_to_try_again():
    retry = detail(status_of(errors.QueueFull("Full.", retry_seconds=2.5)), error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 2.5


def test_what_would_swap_tells_both_sides_and_what_would_fit():
    error = errors.WouldSwap("No.", required_bytes=9, available_bytes=4, fitting_context_tokens=2048)
    info = detail(status_of(error), error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {
        "requiredBytes": "9",
        "availableBytes": "4",
        "fittingContextTokens": "2048",
    }


def test_a_model_that_is_too_large_tells_both_sides_and_one_that_fits():
    error = errors.ModelTooLarge("No.", required_bytes=9, capacity_bytes=4, suggestion="qwen3:4b")
    info = detail(status_of(error), error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {"requiredBytes": "9", "capacityBytes": "4", "suggestion": "qwen3:4b"}


def test_a_bad_field_is_named_in_the_details():
    bad = detail(status_of(errors.FieldInvalid("top_k", "no.")), error_details_pb2.BadRequest)
    assert [violation.field for violation in bad.field_violations] == ["top_k"]


def test_every_error_of_the_tree_is_covered():
    tree = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.AutotuneError)
    }
    assert tree - {errors.AutotuneError} == {type(error) for error, *_ in GOLDEN}
