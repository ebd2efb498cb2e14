"""What an error of the llama.cpp server means to the client who sent the request.

``model`` asks for every error, whether it came instead of an answer or in the middle of one.
Invariant: what the client can mend says which field to mend; what it cannot is an
``EngineUnreachable``, which ``model`` makes itself.
"""

from __future__ import annotations

import re

from autotuned.core.errors import AutotuneError, ContextTooLong, FieldInvalid, Unsupported
from autotuned.engines.chat_events import ProblemData
from autotuned.engines.llamacpp.body import INFILL_TARGET, Call

NOT_IMPLEMENTED = 501
FIRST_SERVER_ERROR = 500
LONGEST_QUOTE = 300

_SPACES = re.compile(r"\s+")
_TEMPLATE_REFUSAL = "Jinja Exception: "
_WRAPPING = re.compile(r"^Unable to generate parser for this template\. Automatic parser generation failed: ")


def refusal(problem: ProblemData, call: Call, *, model_id: str, context_tokens: int) -> AutotuneError | None:
    """The error to raise, or None where the engine failed through no fault of the request."""
    text = quoted(problem.message)
    if problem.type == "exceed_context_size_error":
        return ContextTooLong(
            prompt_tokens=problem.n_prompt_tokens, context_tokens=problem.n_ctx or context_tokens
        )
    if problem.code == NOT_IMPLEMENTED or problem.type == "not_supported_error":
        what = "Filling in the middle" if call.target == INFILL_TARGET else "This request"
        return Unsupported(f'{what} is not supported by "{model_id}" ({text}); use another model.')
    if _TEMPLATE_REFUSAL in problem.message:
        reason = quoted(problem.message.rpartition(_TEMPLATE_REFUSAL)[2])
        return FieldInvalid(
            "chat.messages", f"the model's chat template refuses them ({reason}); change roles or order."
        )
    if "JSON schema" in problem.message or "grammar" in problem.message:
        field = "response_format.schema_json" if b'"response_format"' in call.body else "chat.tools"
        return FieldInvalid(field, f"the engine cannot enforce this schema ({text}); use a simpler one.")
    if problem.code < FIRST_SERVER_ERROR:
        return FieldInvalid("request", f"the engine refuses it ({text}); change the request.")
    return None


def quoted(message: str) -> str:
    """The engine's words as part of one sentence."""
    return _SPACES.sub(" ", _WRAPPING.sub("", message)).strip().rstrip(".")[:LONGEST_QUOTE]
