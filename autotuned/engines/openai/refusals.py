"""What an error of a server means to the client who sent the request.

``requests`` asks for every error that no other server would mend, whether it came instead of an answer
or in the middle of one. Invariant: what the client can mend says what to mend; what it cannot is an
``EngineUnreachable``, which ``requests`` makes itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from autotuned.core.errors import AutotuneError, ContextTooLong, FieldInvalid, ModelNotFound, Unsupported
from autotuned.engines.chat_events import ProblemData
from autotuned.engines.openai.body import Call

NOT_FOUND = 404
NOT_IMPLEMENTED = 501
FIRST_CLIENT_ERROR = 400
FIRST_SERVER_ERROR = 500
LONGEST_QUOTE = 300

_SPACES = re.compile(r"\s+")
_TAGS = re.compile(r"<[^>]{0,200}>")
_NUMBER = r"(?P<{}>[\d,]+)"
_CONTEXT = _NUMBER.format("context")
_PROMPT = _NUMBER.format("prompt")
_LENGTH = rf"context length (?:is|of) (?:only )?{_CONTEXT} tokens"
# How servers say that a prompt is too long, or that it leaves too little room.
_OVERFLOWS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"{_LENGTH}.*?\({_PROMPT} (?:tokens )?(?:in|from) the",
        rf"{_LENGTH}.*?: {_PROMPT} tokens from the input",
        rf"{_LENGTH}.*?(?:has|resulted in) {_PROMPT} (?:input )?tokens",
        rf"{_LENGTH}.*?requested {_PROMPT} tokens",
        rf"(?:passed|contains at least) {_PROMPT} input tokens.*?{_LENGTH}",
        rf"input \({_PROMPT} tokens\).*?context length \({_CONTEXT} tokens\)",
        rf"must be <= {_CONTEXT}\. Given: {_PROMPT} `inputs` tokens",
        rf"prompt has (?:at least )?{_PROMPT} tokens.*?context .*?holds {_CONTEXT}",
    )
)
_NO_PATH = frozenset({"", "not found", "404 not found", "404 page not found", "file not found"})
_OVERFLOW_NAMES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_NO_MODEL = re.compile(
    r"\bmodel\b.*?(?:not (?:exist|found|supported)|does not exist|unknown)|unknown model", re.IGNORECASE
)
_NO_IMAGES = re.compile(r"image|multimodal|vision|only 'text' content", re.IGNORECASE)
_NO_SCHEMA = re.compile(r"schema|grammar|guided|xgrammar|structured output", re.IGNORECASE)


def refusal(  # noqa: PLR0911 - one for each thing that a client can mend
    problem: ProblemData, call: Call, *, model_id: str, known_ids: Sequence[str], context_tokens: int
) -> AutotuneError | None:
    """The error to raise, or None where the server failed through no fault of the request."""
    text = quoted(problem.message)
    if overflow := _overflow(problem, context_tokens):
        return overflow
    if b'"image_url"' in call.body and _NO_IMAGES.search(problem.message):
        return Unsupported(f'Images are not supported by "{model_id}" ({text}); send text only.')
    if problem.code == NOT_IMPLEMENTED or problem.type == "not_supported_error":
        return Unsupported(f'This request is not supported by "{model_id}" ({text}); use another model.')
    if not FIRST_CLIENT_ERROR <= problem.code < FIRST_SERVER_ERROR:
        return None
    if problem.code_name.startswith("model_not") or _NO_MODEL.search(problem.message):
        near = get_close_matches(model_id, [each for each in known_ids if each != model_id], 1)
        return ModelNotFound(
            model_id, near[0] if near else "", advice=f"its server does not have it any more ({text})."
        )
    if problem.code == NOT_FOUND and has_no_path(problem):
        return None
    if _NO_SCHEMA.search(problem.message) and (b'"response_format"' in call.body or b'"tools"' in call.body):
        field = "response_format.schema_json" if b'"response_format"' in call.body else "chat.tools"
        return FieldInvalid(field, f"the engine cannot enforce this schema ({text}); use a simpler one.")
    if b'"suffix"' in call.body and "suffix" in problem.message:
        return Unsupported(f'Filling in the middle is not supported by "{model_id}" ({text}).')
    return FieldInvalid("request", f"the server refuses it ({text}); change the request.")


def has_no_path(problem: ProblemData) -> bool:
    """Whether a server says that what it was asked for is none of its paths: its URL is wrong."""
    text = problem.message.strip()
    return text.startswith("<") or text.casefold().rstrip(".") in _NO_PATH


def quoted(message: str) -> str:
    """The server's words as part of one sentence, without the marks of a web page."""
    plain = _TAGS.sub(" ", message)
    return _SPACES.sub(" ", plain).strip().rstrip(".")[:LONGEST_QUOTE] or "without a word"


def _overflow(problem: ProblemData, context_tokens: int) -> AutotuneError | None:
    if problem.n_prompt_tokens:
        context = problem.n_ctx or context_tokens
        return ContextTooLong(prompt_tokens=problem.n_prompt_tokens, context_tokens=context)
    for pattern in _OVERFLOWS:
        if found := pattern.search(problem.message):
            prompt, context = (int(found[name].replace(",", "") or 0) for name in ("prompt", "context"))
            if prompt >= context:
                return ContextTooLong(prompt_tokens=prompt, context_tokens=context)
            return FieldInvalid(
                "max_reply_tokens",
                f"the prompt has {prompt:,} tokens and the context holds {context:,}; "
                f"ask for at most {context - prompt:,}.",
            )
    if {problem.type, problem.code_name} & _OVERFLOW_NAMES:
        return ContextTooLong(prompt_tokens=context_tokens, context_tokens=context_tokens, at_least=True)
    return None
