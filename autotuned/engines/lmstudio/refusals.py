"""What an error of LM Studio means to the client who sent the request.

``requests`` asks for every error, whether it came instead of an answer or in the middle of one. LM Studio
has no codes for most of them: its words are what there is.
Invariant: what the client can mend says what to mend; the rest is for ``requests`` to call unreachable.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from autotuned.core.errors import AutotuneError, ContextTooLong, FieldInvalid, Unsupported
from autotuned.engines.chat_events import ProblemData
from autotuned.engines.lmstudio.body import Call
from autotuned.engines.lmstudio.events import SILENT_OVERFLOW
from autotuned.engines.lmstudio.rest import quoted

_COUNTED_OVERFLOW = re.compile(r"keep the first (\d+) tokens.*context length of only (\d+)", re.DOTALL)
_OVERFLOW = re.compile(
    r"context (?:size|length|window) (?:has been|is|was) exceeded|exceeds? the context", re.IGNORECASE
)
_SCHEMA = re.compile(r"json schema|grammar", re.IGNORECASE)
_TOOLS = re.compile(r'"function",\s*"parameters"|\btools?\b.*\bschema', re.DOTALL)
_TEMPLATE = re.compile(r"jinja|prompt template|chat template", re.IGNORECASE)
_IMAGES = re.compile(r"not support images|vision", re.IGNORECASE)
# What is no fault of the request, whatever the status.
_LOST = re.compile(
    r"crashed|unloaded|no models? loaded|failed to load|invalid model identifier|model.*not found",
    re.IGNORECASE,
)


def refusal(problem: ProblemData, call: Call, *, model_id: str, context_tokens: int) -> AutotuneError | None:
    """The error to raise, or None where LM Studio failed through no fault of the request."""
    if overflow := _overflow(problem, context_tokens):
        return overflow
    text = quoted(problem.message)
    if _LOST.search(text):
        return None
    if _IMAGES.search(text):
        return Unsupported(f'"{model_id}" does not read images ({text}); send text only.')
    return _field_invalid(problem, text, call)


def _field_invalid(problem: ProblemData, text: str, call: Call) -> FieldInvalid | None:
    if _TEMPLATE.search(text):
        return FieldInvalid(
            "chat.messages", f"the model's chat template refuses them ({text}); change roles or order."
        )
    if _TOOLS.search(problem.message):
        return FieldInvalid(
            "chat.tools", f"LM Studio refuses them ({text}); give each an object with properties."
        )
    if _SCHEMA.search(text):
        field = "response_format.schema_json" if b'"response_format"' in call.body else "chat.tools"
        return FieldInvalid(field, f"the engine cannot enforce this schema ({text}); use a simpler one.")
    if HTTPStatus.BAD_REQUEST <= problem.code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return FieldInvalid("request", f"LM Studio refuses it ({text}); change the request.")
    return None


def _overflow(problem: ProblemData, context_tokens: int) -> ContextTooLong | None:
    if counted := _COUNTED_OVERFLOW.search(problem.message):
        return ContextTooLong(prompt_tokens=int(counted[1]), context_tokens=int(counted[2]))
    if problem.type == SILENT_OVERFLOW or _OVERFLOW.search(problem.message):
        return ContextTooLong(
            prompt_tokens=problem.n_prompt_tokens or context_tokens,
            context_tokens=context_tokens,
            at_least=not problem.n_prompt_tokens,
        )
    return None
