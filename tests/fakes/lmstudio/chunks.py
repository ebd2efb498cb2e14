"""llama.cpp's answers in LM Studio's form: other ids, no timings, no counts of cached tokens."""

from __future__ import annotations

import secrets
import string
import time
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

STOP_REASONS = {
    "stop": "eosFound",
    "length": "maxPredictedTokensReached",
    "tool_calls": "toolCalls",
}


def short_id(length: int = 24) -> str:
    """Such as LM Studio has after "chatcmpl-"."""
    letters = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(letters) for _ in range(length))


def call_id() -> str:
    """The id of a tool call: nine digits."""
    return "".join(secrets.choice(string.digits) for _ in range(9))


def usage_of(usage: Json) -> Json:
    """The counts without those of the prompt cache, which LM Studio does not report."""
    return {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


@dataclass(slots=True, kw_only=True)
class Answer:
    """One answer, whole or in chunks, and what is known of it at the end."""

    model: str
    chat: bool
    id: str = field(default_factory=short_id)
    created: int = field(default_factory=lambda: int(time.time()))
    began: float = field(default_factory=time.monotonic)
    finish_reason: str | None = None
    usage: Json = field(default_factory=dict)
    timings: Json = field(default_factory=dict)

    def head(self, *, streamed: bool) -> Json:
        """The fields that every part of the answer has."""
        kind = (
            ("chat.completion.chunk" if streamed else "chat.completion") if self.chat else "text_completion"
        )
        return {
            "id": ("chatcmpl-" if self.chat else "cmpl-") + self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.model,
        }

    def choice(self, *, finish_reason: str | None = None, **content: Any) -> Json:
        """A chunk with one choice."""
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
        return {**self.head(streamed=True), "choices": [choice]}

    def pieces(self, chunk: Json) -> list[Json]:
        """The chunks to be sent for one of llama.cpp's; those of the end are kept back."""
        self.usage = chunk.get("usage") or self.usage
        self.timings = chunk.get("timings") or self.timings
        found = []
        for choice in chunk["choices"]:
            if self.chat:
                found += self._deltas(choice["delta"])
            elif choice["text"]:
                found.append(self.choice(text=choice["text"]))
            self.finish_reason = choice["finish_reason"] or self.finish_reason
        return found

    def _deltas(self, delta: Json) -> list[Json]:
        if delta.get("content"):
            return [self.choice(delta={"role": "assistant", "content": delta["content"]})]
        found = []
        for call in delta.get("tool_calls") or []:
            function = call["function"]
            if "name" in function:
                begin = {"index": call["index"], "id": call_id(), "type": "function"}
                begin["function"] = {"name": function["name"], "arguments": ""}
                found.append(self.choice(delta={"role": "assistant", "tool_calls": [begin]}))
            if function.get("arguments"):
                piece = {"index": call["index"], "function": {"arguments": function["arguments"]}}
                found.append(self.choice(delta={"role": "assistant", "tool_calls": [piece]}))
        return found

    def last_pieces(self, *, include_usage: bool, details: Json | None) -> list[Json]:
        """The end of a stream; ``details`` go into its very last chunk, as ``/api/v0`` has them."""
        content: Json = {"delta": {}} if self.chat else {"text": ""}
        found = [self.choice(finish_reason=self.finish_reason, **content)]
        if include_usage:
            found.append({**self.head(streamed=True), "choices": [], "usage": usage_of(self.usage)})
        if details is not None:
            found[-1] |= {"usage": usage_of(self.usage), **details}
        return found

    def whole(self, answer: Json, details: Json | None) -> Json:
        """An answer that is not streamed."""
        self.usage, self.timings = answer["usage"], answer["timings"]
        [choice] = answer["choices"]
        self.finish_reason = choice["finish_reason"]
        told: Json = {"index": 0, "logprobs": None, "finish_reason": self.finish_reason}
        if self.chat:
            message = choice["message"]
            told["message"] = {"role": "assistant", "content": message["content"]}
            calls = [{**call, "id": call_id()} for call in message.get("tool_calls") or []]
            if calls:
                del told["message"]["content"]
            told["message"]["tool_calls"] = calls
        else:
            told["text"] = choice["text"]
        body = {**self.head(streamed=False), "choices": [told], "usage": usage_of(self.usage)}
        return {**body, "stats": {}, **(details or {})}

    def stats(self) -> Json:
        """The numbers that ``/api/v0`` adds; seconds, and tokens a second."""
        return {
            "tokens_per_second": self.timings.get("predicted_per_second", 0.0),
            "time_to_first_token": self.timings.get("prompt_ms", 0.0) / 1000,
            "generation_time": self.timings.get("predicted_ms", 0.0) / 1000,
            "stop_reason": STOP_REASONS[self.finish_reason or "stop"],
        }
