"""Conversations in plain Python: builds the request, collects the reply. The clients and the CLI use it.

Pure: nothing here talks to the daemon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf import duration_pb2

from autotune.errors import FieldInvalid, encoding_checked
from autotune.v1 import chat_pb2, inference_service_pb2, plan_pb2

Conversation = str | Sequence[chat_pb2.Message | Mapping[str, str]]
"""A question, or messages: wire messages or mappings with ``role`` and ``content``."""

ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
}
PROFILES = {
    "fast": inference_service_pb2.PROFILE_FAST,
    "balanced": inference_service_pb2.PROFILE_BALANCED,
    "quality": inference_service_pb2.PROFILE_QUALITY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model made; ``arguments_json`` is JSON text."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer. ``finish_reason`` is stop, length or tool_calls; ``plan`` says what was decided.

    ``cached_tokens`` is how much of the prompt the KV cache already held; None where the engine does not
    tell, and ``usage`` has 0.
    """

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    model: str
    engine: str
    request_id: str
    usage: inference_service_pb2.Usage
    timings: inference_service_pb2.Timings
    plan: plan_pb2.Plan
    cached_tokens: int | None = None


@dataclass(slots=True)
class ReplyBuilder:
    """Collects the events of one generation, in order, into a ``Reply``.

    ``text`` is what has come so far, also when the stream ends early.
    """

    _parts: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _calls: dict[int, list[str]] = field(default_factory=dict)
    _started: inference_service_pb2.Started | None = None
    _finished: inference_service_pb2.Finished | None = None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._parts)

    @property
    def started(self) -> inference_service_pb2.Started | None:
        """The engine's first word, with the plan; None before it came."""
        return self._started

    def add(self, event: inference_service_pb2.GenerateResponse) -> str:
        """Takes the next event; returns the piece of answer text in it, or ""."""
        match event.WhichOneof("event"):
            case "started":
                self._started = event.started
            case "finished":
                self._finished = event.finished
            case "delta":
                return self._add_delta(event.delta)
        return ""

    def _add_delta(self, delta: inference_service_pb2.Delta) -> str:
        match delta.WhichOneof("content"):
            case "text":
                self._parts.append(delta.text)
                return delta.text
            case "reasoning":
                self._reasoning.append(delta.reasoning)
            case "tool_call":
                call = self._calls.setdefault(delta.part_index, ["", "", ""])
                call[0] += delta.tool_call.id
                call[1] += delta.tool_call.name
                call[2] += delta.tool_call.arguments_json_fragment
        return ""

    def reply(self) -> Reply:
        """The answer so far as a ``Reply``: whole once the stream has ended, else with empty numbers."""
        started = self._started or inference_service_pb2.Started()
        finished = self._finished or inference_service_pb2.Finished()
        reason = inference_service_pb2.FinishReason.Name(finished.finish_reason)
        return Reply(
            text=self.text,
            reasoning="".join(self._reasoning),
            tool_calls=tuple(
                ToolCall(id=call[0], name=call[1], arguments_json=call[2])
                for _, call in sorted(self._calls.items())
            ),
            finish_reason=reason.removeprefix("FINISH_REASON_").lower(),
            model=started.model,
            engine=started.engine,
            request_id=started.request_id,
            usage=finished.usage,
            timings=finished.timings,
            plan=started.plan,
            cached_tokens=_cached_tokens(started, finished.usage),
        )


def _cached_tokens(started: inference_service_pb2.Started, usage: inference_service_pb2.Usage) -> int | None:
    """An engine tells them with its first word or at the end; a 0 at the end alone tells nothing."""
    return usage.cached_tokens if usage.cached_tokens or started.HasField("cached_tokens") else None


def message(role: str, text: str) -> chat_pb2.Message:
    """A message of plain text; ``role`` is system, user or assistant. Raises FieldInvalid."""
    if role not in ROLES:
        raise FieldInvalid(f'role: "{role}" is not one of {", ".join(ROLES)}.', metadata={"field": "role"})
    with encoding_checked("text"):
        return chat_pb2.Message(role=ROLES[role], parts=[chat_pb2.Part(text=text)])


def chat_request(
    conversation: Conversation,
    *,
    model: str = "",
    system: str = "",
    profile: str = "",
    temperature: float | None = None,
    max_reply_tokens: int | None = None,
    seed: int | None = None,
    context_tokens: int | None = None,
    no_swap: bool | None = None,
    keep_alive_seconds: float | None = None,
    store: bool | None = None,
    engine: str = "",
) -> inference_service_pb2.GenerateRequest:
    """The request that answers ``conversation``. What is left out takes the daemon's defaults.

    ``system`` goes before the messages; ``profile`` is fast, balanced or quality. ``no_swap`` refuses a
    load that would push memory to disk. ``keep_alive_seconds``: how long the model stays in memory after
    its last use; negative until its memory is needed. ``store`` False keeps nothing on disk. ``engine``
    names the engine that must run it, as a model's name "engine/model" does. Ranges are the daemon's to
    check. Raises FieldInvalid for what cannot be put on the wire.
    """
    wire_profile = profile_value(profile)
    chat = conversation_input(conversation, system)
    with encoding_checked("request"):
        return inference_service_pb2.GenerateRequest(
            model=model,
            chat=chat,
            sampling=inference_service_pb2.Sampling(temperature=temperature, seed=seed),
            max_reply_tokens=max_reply_tokens,
            profile=wire_profile,
            context_tokens=context_tokens,
            swap_policy=swap_policy(no_swap),
            keep_alive_duration=duration("keep_alive_duration", keep_alive_seconds),
            store_policy=_store_policy(store),
            engine=engine,
        )


def prewarm_request(
    conversation: Conversation = (),
    *,
    model: str = "",
    system: str = "",
    profile: str = "",
    context_tokens: int | None = None,
    no_swap: bool | None = None,
    store: bool | None = None,
    engine: str = "",
) -> inference_service_pb2.PrewarmRequest:
    """The request that computes the KV cache of what conversations begin with; see ``chat_request``.

    Without system prompt and messages the model is only loaded.
    """
    wire_profile = profile_value(profile)
    chat = conversation_input(conversation, system)
    with encoding_checked("request"):
        return inference_service_pb2.PrewarmRequest(
            model=model,
            chat=chat,
            profile=wire_profile,
            context_tokens=context_tokens,
            swap_policy=swap_policy(no_swap),
            store_policy=_store_policy(store),
            engine=engine,
        )


def profile_value(profile: str) -> inference_service_pb2.Profile:
    """The wire value of a profile's name; "" is the daemon's own. Raises FieldInvalid."""
    if profile and profile not in PROFILES:
        raise FieldInvalid(
            f'profile: "{profile}" is not one of {", ".join(PROFILES)}.', metadata={"field": "profile"}
        )
    return PROFILES.get(profile, inference_service_pb2.PROFILE_UNSPECIFIED)


def swap_policy(no_swap: bool | None) -> inference_service_pb2.SwapPolicy:
    """The wire value; None is the daemon's own policy."""
    if no_swap is None:
        return inference_service_pb2.SWAP_POLICY_UNSPECIFIED
    return inference_service_pb2.SWAP_POLICY_NEVER if no_swap else inference_service_pb2.SWAP_POLICY_ALLOW


def duration(field: str, seconds: float | None) -> duration_pb2.Duration | None:
    """A time on the wire; None stays absent. Raises FieldInvalid for one that is no duration."""
    if seconds is None:
        return None
    with encoding_checked(field):
        whole, fraction = divmod(seconds, 1)
        if whole < 0 and fraction:  # both parts have one sign
            whole, fraction = whole + 1, fraction - 1
        return duration_pb2.Duration(seconds=int(whole), nanos=int(fraction * 1e9))


def _store_policy(store: bool | None) -> inference_service_pb2.StorePolicy:
    if store is None:
        return inference_service_pb2.STORE_POLICY_UNSPECIFIED
    return inference_service_pb2.STORE_POLICY_KEEP if store else inference_service_pb2.STORE_POLICY_DISCARD


def conversation_input(conversation: Conversation, system: str = "") -> chat_pb2.ChatInput:
    """A conversation on the wire, after its system prompt. Raises FieldInvalid."""
    messages = [message("system", system)] if system else []
    messages += _messages(conversation)
    return chat_pb2.ChatInput(messages=messages)


def _messages(conversation: Conversation) -> Iterable[chat_pb2.Message]:
    if isinstance(conversation, str):
        return [message("user", conversation)]
    return [
        entry
        if isinstance(entry, chat_pb2.Message)
        else message(entry.get("role", "user"), entry.get("content", ""))
        for entry in conversation
    ]
