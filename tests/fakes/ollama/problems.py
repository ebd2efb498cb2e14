"""The one error of the double: a status and the words that the original answers with."""

from __future__ import annotations


class Problem(Exception):
    """An answer ``{"error": message}`` with this status, or a line of a stream that runs already."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class NotFound(Problem):
    """A model that the store does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f"model '{name}' not found", 404)


RUNNER_GONE = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)
