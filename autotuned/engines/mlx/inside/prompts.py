"""From a conversation to tokens, through the model's own chat template.

``generation`` and counting use it; it is safe from several threads. Invariant: a prompt has the same
tokens whether it is counted or computed.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from typing import Any

from autotuned.engines.mlx.inside.problems import Problem, invalid, unsupported
from autotuned.engines.mlx.protocol import PromptData

_SPACES = re.compile(r"\s+")
_LONGEST_QUOTE = 300
# Templates that take arguments as the text that they are say so.
_TAKES_TEXT = re.compile(r"arguments\s+is\s+string")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as text and tokens.

    ``goes_on``: it ends within an answer. ``opens_answer_at`` is where the template begins the answer:
    a later prompt of the conversation has the same tokens up to there.
    """

    text: str
    tokens: list[int]
    goes_on: bool = False
    opens_answer_at: int = 0


class Prompts:
    """The template and the tokenizer of one model."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        template = tokenizer.chat_template
        text = template if isinstance(template, str) else json.dumps(template or "")
        self._takes_text = _TAKES_TEXT.search(text) is not None

    def prompt(self, data: PromptData, *, finds_opening: bool) -> Prompt:
        """The prompt that is computed. Raises ``Problem``."""
        with self._lock:
            if data.text is not None:
                tokens = self._raw(data.text)
                return Prompt(text=data.text, tokens=tokens, goes_on=True, opens_answer_at=len(tokens))
            messages = [self._readable(message) for message in data.messages]
            last = messages[-1] if messages else {}
            goes_on = last.get("role") == "assistant" and not last.get("tool_calls")
            if goes_on and not last.get("content"):
                goes_on = False
                messages.pop()
            text = self._render(messages, data, goes_on=goes_on)
            tokens = self._encode(text)
            return Prompt(
                text=text,
                tokens=tokens,
                goes_on=goes_on,
                opens_answer_at=self._answer_at(messages, data, text, tokens)
                if finds_opening and not goes_on
                else len(tokens),
            )

    def encode(self, text: str) -> list[int]:
        """The tokens of more of a prompt."""
        with self._lock:
            return self._encode(text)

    def _answer_at(
        self, messages: list[dict[str, Any]], data: PromptData, text: str, tokens: list[int]
    ) -> int:
        """The tokens of the conversation alone, without what opens an answer."""
        try:
            closed = self._render(messages, data, goes_on=False, opens_answer=False)
        except Problem:
            return len(tokens)
        if not text.startswith(closed) or len(closed) == len(text):
            return len(tokens)
        opening = self._encode(text[len(closed) :])
        place = len(tokens) - len(opening)
        return place if tokens[place:] == opening else len(tokens)

    def _render(
        self, messages: list[dict[str, Any]], data: PromptData, *, goes_on: bool, opens_answer: bool = True
    ) -> str:
        if not self._tokenizer.has_chat_template:
            raise unsupported("this model has no chat template; send a raw prompt instead.")
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": opens_answer and not goes_on}
        if goes_on:
            options["continue_final_message"] = True
        if data.thinking is not None:
            options["enable_thinking"] = data.thinking
        if data.effort:
            options["reasoning_effort"] = data.effort
        try:
            return str(self._tokenizer.apply_chat_template(messages, tools=data.tools or None, **options))
        except Exception as error:  # templates raise what they like
            reason = _SPACES.sub(" ", str(error)).strip().rstrip(".")[:_LONGEST_QUOTE]
            raise invalid(
                "chat.messages",
                f"the model's chat template refuses them ({reason}); change roles or order.",
            ) from error

    def _readable(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message as templates read it: one text, and arguments that are an object."""
        readable = dict(message)
        content = readable.get("content")
        if isinstance(content, list):
            readable["content"] = "\n".join(part.get("text", "") for part in content)
        if (calls := readable.get("tool_calls")) and not self._takes_text:
            readable["tool_calls"] = [_with_object(call) for call in calls]
        return readable

    def _raw(self, text: str) -> list[int]:
        """A text as it is, after the token that begins all texts of this model, if there is one."""
        if not text:
            return []
        start = self._tokenizer.bos_token
        return self._encode(text, special=not (start and text.startswith(start)))

    def _encode(self, text: str, *, special: bool = False) -> list[int]:
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=special)]


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    try:
        function["arguments"] = json.loads(function["arguments"])
    except ValueError:
        return call
    return call | {"function": function}
