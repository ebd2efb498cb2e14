"""The shapes that LM Studio gives its errors: they differ from one family of endpoints to the other."""

from __future__ import annotations

from typing import Any


class Problem(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.status = status
        self.body = body


def rest_problem(
    status: int, kind: str, message: str, *, code: str | None = None, param: str | None = None
) -> Problem:
    """What ``/api/v1`` answers."""
    error = {"type": kind, "message": message, "code": code, "param": param}
    return Problem(status, {"error": {name: value for name, value in error.items() if value is not None}})


def openai_problem(status: int, message: str, *, code: str, param: str | None = None) -> Problem:
    """What ``/v1`` answers where the OpenAI API has a code for it."""
    return Problem(
        status,
        {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}},
    )


def text_problem(message: str, status: int = 400) -> Problem:
    """What ``/v1`` and ``/api/v0`` answer otherwise: the error is a string."""
    return Problem(status, {"error": message})


def unauthorized() -> Problem:
    """The answer to a request without a valid token."""
    return rest_problem(
        401,
        "invalid_request",
        "An LM Studio API token is required to make requests to this server, but no valid one was provided "
        "using the Authorization header using the 'Bearer' scheme.",
        code="invalid_api_key",
    )


def message_of(problem: Problem) -> str:
    """The sentence in it."""
    error = problem.body["error"]
    return error if isinstance(error, str) else str(error["message"])
