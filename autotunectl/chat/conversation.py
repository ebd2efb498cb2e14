"""A conversation in memory: what was said, how to ask next, what it took. Pure.

Invariant: ``turns`` alternates user and assistant, and every request carries all of it, so that the
engine finds its prefix again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from autotune.chat import Reply, chat_request, prewarm_request
from autotune.v1 import inference_service_pb2

_PREWARM_OPTIONS = frozenset({"context_tokens", "no_swap", "store"})


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str
    text: str


@dataclass(slots=True, kw_only=True)
class Conversation:
    """``model``, ``profile`` and ``system``: "" takes the daemon's default; ``engine`` "" leaves the choice.

    ``options``: more options of ``autotune.chat_request``, by name.
    """

    model: str = ""
    profile: str = ""
    system: str = ""
    engine: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    @property
    def place(self) -> str:
        """The model, and the engine where it is chosen, for a person; "" for the default model."""
        if self.model and self.engine:
            return f"{self.model} on {self.engine}"
        return self.model

    def request(self, question: str) -> inference_service_pb2.GenerateRequest:
        """Asks ``question`` after all that was said. Raises FieldInvalid."""
        return chat_request(
            [*self._messages(), {"role": "user", "content": question}],
            model=self.model,
            profile=self.profile,
            system=self.system,
            engine=self.engine,
            **self.options,
        )

    def beginning(self) -> inference_service_pb2.PrewarmRequest:
        """What the next question comes after. Raises FieldInvalid."""
        options = {name: value for name, value in self.options.items() if name in _PREWARM_OPTIONS}
        return prewarm_request(
            self._messages(),
            model=self.model,
            profile=self.profile,
            system=self.system,
            engine=self.engine,
            **options,
        )

    def add(self, question: str, reply: Reply, *, whole: bool) -> None:
        """Takes a question and what came for it. Numbers count only for a ``whole`` answer."""
        self.turns += [Turn("user", question), Turn("assistant", reply.text)]
        if whole:
            self.replies.append(reply)

    def clear(self) -> None:
        """Begins anew with the same settings."""
        self.turns.clear()
        self.replies.clear()

    def _messages(self) -> list[dict[str, str]]:
        return [{"role": turn.role, "content": turn.text} for turn in self.turns]


def history_text(conversation: Conversation) -> str:
    """What was said, for the terminal."""
    if not conversation.turns:
        return "Nothing was said yet.\n"
    return "".join(
        f"> {turn.text}\n" if turn.role == "user" else f"{turn.text}\n\n" for turn in conversation.turns
    ).removesuffix("\n")


def markdown(conversation: Conversation) -> str:
    """What was said, as a Markdown document."""
    title = f"# Conversation with {conversation.place or 'the default model'}\n"
    system = f"\n**System:** {conversation.system}\n" if conversation.system else ""
    names = {"user": "You", "assistant": "Model"}
    turns = [f"\n## {names[turn.role]}\n\n{turn.text}\n" for turn in conversation.turns]
    return "".join((title, system, *turns))


def export_json(conversation: Conversation) -> dict[str, Any]:
    """What was said, as the messages of a request."""
    system = [{"role": "system", "content": conversation.system}] if conversation.system else []
    turns = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
    return {
        "model": conversation.model,
        "engine": conversation.engine,
        "profile": conversation.profile,
        "messages": system + turns,
    }
