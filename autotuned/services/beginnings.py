"""Which prewarmed state the first request of a conversation takes over.

``services.inference`` owns one for all models. A beginning that was prewarmed has no question yet, so the
conversation that will have one has another name. The first that begins with it goes on under the name of
the beginning, since an engine keeps one state under one name; the next one has a name of its own again.
Invariant: no two conversations go by one name, and memory is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from autotuned.core.chat import ChatInput, RawPrompt, Role
from autotuned.policy.prefixes import conversation_name

MOST_INCARNATIONS = 32
MOST_NAMES = 256


@dataclass(slots=True)
class _Names:
    """Of one incarnation: prewarmed beginnings that wait, and the names of conversations that took one."""

    waiting: OrderedDict[str, str] = field(default_factory=OrderedDict)
    taken: OrderedDict[str, str] = field(default_factory=OrderedDict)
    made_count: int = 0


class Beginnings:
    """By incarnation, since a state is gone with the incarnation that holds it."""

    def __init__(self) -> None:
        self._incarnations: OrderedDict[str, _Names] = OrderedDict()

    def of_prewarm(self, incarnation_id: str, prompt: ChatInput | RawPrompt, name: str) -> str:
        """What the engine is to know this prewarm by; ``name`` is that of its conversation."""
        if _has_question(prompt):
            return name
        beginning = conversation_name(prompt)
        names = self._incarnations.setdefault(incarnation_id, _Names())
        self._incarnations.move_to_end(incarnation_id)
        if beginning not in names.waiting:
            names.made_count += 1
            names.waiting[beginning] = f"{beginning}-{names.made_count}"
        names.waiting.move_to_end(beginning)
        _bound(names.waiting, MOST_NAMES)
        _bound(self._incarnations, MOST_INCARNATIONS)
        return names.waiting[beginning]

    def of_request(self, incarnation_id: str, prompt: ChatInput | RawPrompt, name: str) -> str:
        """What the engine knows this request's conversation by."""
        names = self._incarnations.get(incarnation_id)
        if names is None or isinstance(prompt, RawPrompt):
            return name
        if name not in names.taken and names.waiting:
            beginning = names.waiting.pop(conversation_name(_without_question(prompt)), None)
            if beginning is not None:
                names.taken[name] = beginning
                _bound(names.taken, MOST_NAMES)
        return names.taken.get(name, name)


def _has_question(prompt: ChatInput | RawPrompt) -> bool:
    return isinstance(prompt, RawPrompt) or any(message.role is Role.USER for message in prompt.messages)


def _without_question(chat: ChatInput) -> ChatInput:
    """Tools, and all that comes before the first question."""
    first = next((n for n, message in enumerate(chat.messages) if message.role is Role.USER), 0)
    return ChatInput(chat.messages[:first], chat.tools)


def _bound(entries: OrderedDict[str, str] | OrderedDict[str, _Names], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
