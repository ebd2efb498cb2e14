"""What an error of Ollama's means to the client who sent the request.

``requests`` asks for every error, whether it came instead of an answer or in the middle of one. Much of what
Ollama says is the JSON of the engine below it, put into a text.
Invariant: what the client can mend says which field to mend; what it cannot is None.
"""

from __future__ import annotations

import re

from autotuned.core.errors import AutotuneError, ContextTooLong, FieldInvalid, ModelNotFound, Unsupported
from autotuned.engines.chat_events import problem_in
from autotuned.engines.ollama.body import Call
from autotuned.engines.ollama.client import NOT_FOUND
from autotuned.engines.ollama.server import PROGRAM

FIRST_SERVER_ERROR = 500
LONGEST_QUOTE = 300

_SPACES = re.compile(r"\s+")
_COUNTED = re.compile(r"request \((\d+) tokens\)")
_TOO_LONG = re.compile(
    r"longer than the context length|exceed\w* the (?:available )?context|exceeds maximum context"
    r"|exceed_context_size"
)
_UNABLE = re.compile(r"does not support (?P<what>\w+)")
_TEMPLATE_REFUSAL = "Jinja Exception: "


def refusal(
    message: str, status: int, call: Call, *, model: str, context_tokens: int
) -> AutotuneError | None:
    """The error to raise, or None where the engine failed through no fault of the request."""
    problem = problem_in(message.encode(errors="replace"), status)
    text, inner = quoted(problem.message), problem.message
    if problem.type == "exceed_context_size_error" or _TOO_LONG.search(inner):
        return _too_long(problem.n_prompt_tokens, problem.n_ctx or context_tokens, inner)
    if status == NOT_FOUND and "not found" in inner:
        return ModelNotFound(model, "", engine=PROGRAM)
    return _of_request(inner, text, problem.code, call, model)


def _of_request(inner: str, text: str, code: int, call: Call, model: str) -> AutotuneError | None:
    """What the request asks for that this model, or Ollama, cannot do."""
    if unable := _UNABLE.search(inner):
        return Unsupported(
            f'Ollama says that "{model}" does not support {unable["what"]}; use another model.'
        )
    if _TEMPLATE_REFUSAL in inner:
        reason = quoted(inner.rpartition(_TEMPLATE_REFUSAL)[2])
        return FieldInvalid(
            "chat.messages", f"the model's chat template refuses them ({reason}); change roles or order."
        )
    if "JSON schema" in inner or "grammar" in inner or "invalid format" in inner:
        field = "response_format.schema_json" if b'"format":' in call.body else "chat.tools"
        return FieldInvalid(field, f"Ollama cannot enforce this schema ({text}); use a simpler one.")
    if 0 < code < FIRST_SERVER_ERROR:
        return FieldInvalid("request", f"Ollama refuses it ({text}); change the request.")
    return None


def _too_long(counted_tokens: int, context_tokens: int, text: str) -> ContextTooLong:
    """With the count where it is told; else all that is known is that the context is full."""
    match = _COUNTED.search(text)
    tokens = counted_tokens or (int(match[1]) if match else 0)
    return ContextTooLong(
        prompt_tokens=tokens or context_tokens, context_tokens=context_tokens, at_least=not tokens
    )


def quoted(message: str) -> str:
    """The server's words as part of one sentence."""
    return _SPACES.sub(" ", message).strip().rstrip(".")[:LONGEST_QUOTE]
