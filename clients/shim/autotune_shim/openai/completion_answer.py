"""The daemon's events as a text completion: whole, or as the chunks of an event stream.

A raw prompt meets no template, so the answer is text alone: no reasoning, no tool calls.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from autotune.v1 import inference_service_pb2 as wire

from autotune_shim.exchange import HttpReply, StreamAnswer, WholeAnswer
from autotune_shim.openai.chat_answer import new_id
from autotune_shim.openai.errors import error_object
from autotune_shim.openai.figures import (
    FINISH_REASONS,
    autotune_object,
    completion_logprobs,
    fingerprint,
    usage_object,
)
from autotune_shim.sse import MEDIA_TYPE, data_event, waiting_comment


class CompletionStream(StreamAnswer):
    """Chunks of a text completion. The last one carries the numbers."""

    media_type = MEDIA_TYPE

    def __init__(self, *, includes_usage: bool, profile: wire.Profile) -> None:
        self._includes_usage = includes_usage
        self._profile = profile
        self._created = int(time.time())
        self._started = wire.Started()
        self._head: dict[str, Any] = {}
        self._frame = (b"", b"")
        self._characters = 0

    def event(self, response: wire.GenerateResponse) -> bytes:
        """The chunks of one event; Started has none."""
        if response.HasField("delta"):
            return self._delta(response.delta)
        if response.HasField("started"):
            self._start(response.started)
        elif response.HasField("finished"):
            self.complete = True
            return self._finish(response.finished)
        return b""

    def waiting(self, position: int) -> bytes:
        """A comment."""
        return waiting_comment(position)

    def failure(self, error: Exception) -> bytes:
        """The error as the last event. No [DONE] follows: the answer is not done."""
        return data_event({"error": error_object(error)})

    def _start(self, started: wire.Started) -> None:
        self._started.CopyFrom(started)
        self._head = {
            "id": new_id("cmpl", started),
            "object": "text_completion",
            "created": self._created,
            "model": started.model,
            "system_fingerprint": fingerprint(started),
        }
        prefix, _, suffix = self._chunk("").partition(b'"text":""')
        self._frame = (prefix + b'"text":', suffix)

    def _delta(self, delta: wire.Delta) -> bytes:
        if delta.logprobs:
            logprobs = completion_logprobs(delta.logprobs, self._characters)
            self._characters += len(delta.text)
            return self._chunk(delta.text, logprobs=logprobs)
        prefix, suffix = self._frame
        self._characters += len(delta.text)
        return prefix + msgspec.json.encode(delta.text) + suffix if delta.text else b""

    def _finish(self, finished: wire.Finished) -> bytes:
        numbers = {"autotune": autotune_object(self._started, finished.timings, self._profile)}
        reason = FINISH_REASONS[finished.finish_reason]
        if not self._includes_usage:
            return self._chunk("", finish_reason=reason, **numbers) + b"data: [DONE]\n\n"
        usage = {**self._head, "choices": [], "usage": usage_object(self._started, finished.usage), **numbers}
        return self._chunk("", finish_reason=reason) + data_event(usage) + b"data: [DONE]\n\n"

    def _chunk(
        self, text: str, *, logprobs: object = None, finish_reason: str | None = None, **extra: object
    ) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._includes_usage else {}
        return data_event({**self._head, "choices": [choice], **usage, **extra})


class CompletionWhole(WholeAnswer):
    """A text completion."""

    def __init__(self, *, profile: wire.Profile) -> None:
        self._profile = profile
        self._created = int(time.time())
        self._started = wire.Started()
        self._finished = wire.Finished()
        self._text: list[str] = []
        self._logprobs: list[wire.TokenLogprob] = []

    def event(self, response: wire.GenerateResponse) -> None:
        """Takes the next event."""
        if response.HasField("delta"):
            self._text.append(response.delta.text)
            self._logprobs += response.delta.logprobs
        elif response.HasField("started"):
            self._started.CopyFrom(response.started)
        elif response.HasField("finished"):
            self._finished.CopyFrom(response.finished)
            self.complete = True

    def reply(self) -> HttpReply:
        """The completion."""
        started, finished = self._started, self._finished
        choice = {
            "index": 0,
            "text": "".join(self._text),
            "logprobs": completion_logprobs(self._logprobs, 0) if self._logprobs else None,
            "finish_reason": FINISH_REASONS[finished.finish_reason],
        }
        body = {
            "id": new_id("cmpl", started),
            "object": "text_completion",
            "created": self._created,
            "model": started.model,
            "system_fingerprint": fingerprint(started),
            "choices": [choice],
            "usage": usage_object(started, finished.usage),
            "autotune": autotune_object(started, finished.timings, self._profile),
        }
        return HttpReply(200, msgspec.json.encode(body))
