"""What becomes of the tokens of one reply: text, parts, log probabilities, and when it is over.

``generation`` gives it each token that was drawn. Invariant: all text that is emitted is remembered in the
state's ``reply``, whose tokens are those that were drawn for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import mlx.core as mx

from autotuned.engines.mlx.inside.logprobs import logprobs_of
from autotuned.engines.mlx.inside.prompts import Prompt
from autotuned.engines.mlx.inside.replies import SAID, Marks, ReplyReader
from autotuned.engines.mlx.inside.runtime import Runtime
from autotuned.engines.mlx.inside.states import Reply
from autotuned.engines.mlx.inside.stops import StopSequences
from autotuned.engines.mlx.inside.vocabulary import ReplyText
from autotuned.engines.mlx.protocol import GenerateCall

STOP, LENGTH, TOOL_CALLS = "stop", "length", "tool_calls"

Emit = Callable[[dict[str, Any]], None]


class Answer:
    """One reply. ``begun_tokens`` are those of it that were drawn before it was cut."""

    def __init__(
        self,
        runtime: Runtime,
        call: GenerateCall,
        prompt: Prompt,
        reply: Reply,
        *,
        emit: Emit,
        begun_tokens: Sequence[int],
    ) -> None:
        self._runtime = runtime
        self._top_count = call.top_logprobs
        self._reply = reply
        self._emit = emit
        self._text = ReplyText(runtime.vocabulary, goes_on=prompt.goes_on)
        for token in begun_tokens:  # the last character may have been cut
            self._text.add(token)
        self._stops = StopSequences(call.stop)
        marks = _marks(runtime, call)
        self._reader = ReplyReader(
            marks, thinks=bool(marks.think_start) and prompt.text.rstrip().endswith(marks.think_start)
        )
        self._logprobs: list[dict[str, Any]] = []
        self.tokens_count = 0
        self.reason = ""

    @property
    def is_thinking(self) -> bool:
        """Whether the model still thinks: grammars begin afterwards."""
        return self._reader.is_thinking

    def take(self, token: int, logits: mx.array) -> None:
        """A token that was drawn from these logits; ``reason`` is set when it ends the reply."""
        self.tokens_count += 1
        if token in self._runtime.ends:
            self.reason = STOP
            return
        self._reply.tokens.append(token)
        if self._top_count is not None:
            self._logprobs.append(logprobs_of(self._runtime.vocabulary, logits, token, self._top_count))
        text = self._text.add(token)
        certain = self._stops.feed(text) if text else ""
        if certain:
            self._give(self._reader.feed(certain))
        if self._stops.found:
            self.reason = STOP

    def close(self) -> None:
        """The reply is over, where nothing else ended it because there was no more room."""
        self.reason = self.reason or LENGTH
        deltas: list[dict[str, Any]] = []
        if not self._stops.found:
            # A reply that may go on keeps a character that is not complete to itself.
            rest = self._stops.rest() + ("" if self.reason == LENGTH else self._text.rest())
            deltas = self._reader.feed(rest) if rest else []
        self._give(deltas + self._reader.finish())
        if self._logprobs:
            self._give([{SAID: ""}])
        if self._reader.calls_count:
            self.reason = TOOL_CALLS

    def _give(self, deltas: list[dict[str, Any]]) -> None:
        for delta in deltas:
            self._reply.text += delta.get(SAID, "")
            choice: dict[str, Any] = {"index": 0, "delta": delta}
            if self._logprobs:
                choice["logprobs"] = {"content": self._logprobs}
                self._logprobs = []
            self._emit({"choices": [choice]})


def _marks(runtime: Runtime, call: GenerateCall) -> Marks:
    """What begins and ends the parts of this reply; a raw prompt has none."""
    if call.prompt.text is not None:
        return Marks()
    marks = runtime.marks(calls=bool(call.prompt.tools))
    if not marks.call_start:
        return marks
    return replace(marks, parse=partial(_parsed, runtime.tokenizer.tool_parser, call.prompt.tools))


def _parsed(parse: Callable[..., Any], tools: list[dict[str, Any]], text: str) -> Any:
    return parse(text, tools)
