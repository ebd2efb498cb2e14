"""How large a session becomes: an agent's loop is sized once, for all of its turns.

``services.sessions`` calls it. A session is named by the beginning that all of its turns share. Agents
add a tool's answer at each turn, so a context sized for the first one would be too small soon.
Invariant: what is expected never lies below what the request itself needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from math import ceil

from autotuned.core.chat import ChatInput, GenerationRequest, RawPrompt, Role, TextPart
from autotuned.core.learning import SessionSize

AGENT = "agent"
CHAT = "chat"

# So many messages before the last one are a loop, with or without tools.
AGENT_HISTORY_MESSAGES = 6
# A loop of which nothing is known: turns to come, and the tokens that each one adds.
EXPECTED_TURNS = 20
TURN_TOKENS = 300
# Memory for a loop of which nothing is known; one that needs more grows.
MOST_UNKNOWN_TOKENS = 32_768
_USUAL_SHARE = 0.9
_NAME_BYTES = 16
_SAMPLE_CHARACTERS = 256


def kind(prompt: ChatInput | RawPrompt) -> str:
    """AGENT for a conversation with tools or a long history, else CHAT."""
    if isinstance(prompt, RawPrompt):
        return CHAT
    if prompt.tools:
        return AGENT
    turns = sum(message.role is not Role.SYSTEM for message in prompt.messages)
    return AGENT if turns > AGENT_HISTORY_MESSAGES else CHAT


def session_name(request: GenerationRequest, digest: str) -> str:
    """The name of a session: one client's conversation with one model.

    Its turns share tools, system prompt and first question. Of each text the length and both ends count,
    so that the name costs microseconds, however long they are: where two sessions went by one name, one
    size would be remembered for both.
    """
    named = repr((digest, request.client, *_beginning(request.input)))
    return blake2b(named.encode("utf-8", "surrogatepass"), digest_size=_NAME_BYTES).hexdigest()


def expected_agent_tokens(now_tokens: int, turns_count: int, earlier: Iterable[SessionSize]) -> int:
    """Tokens of the largest turn to come, prompt and reply together; ``now_tokens`` are those of this one.

    What nine of ten earlier sessions stayed within. Where this one has outgrown them after so many
    turns, as much again for each of 20 more as a turn of it took so far; where nothing is known, 300
    tokens for each. A guess is at most 32,768.
    """
    usual = usual_tokens(earlier)
    if usual >= now_tokens:
        return usual
    turn_tokens = max(TURN_TOKENS, now_tokens // turns_count if turns_count else 0)
    return max(now_tokens, min(now_tokens + EXPECTED_TURNS * turn_tokens, MOST_UNKNOWN_TOKENS))


def usual_tokens(sizes: Iterable[SessionSize]) -> int:
    """What nine of ten sessions stayed within (nearest rank); 0 where there were none."""
    largest = sorted(size.largest_tokens for size in sizes)
    return largest[ceil(len(largest) * _USUAL_SHARE) - 1] if largest else 0


def _beginning(prompt: ChatInput | RawPrompt) -> Iterator[object]:
    if isinstance(prompt, RawPrompt):
        yield prompt.prompt[:_SAMPLE_CHARACTERS]
        return
    for tool in prompt.tools:
        yield tool.name, len(tool.description), len(tool.parameters_json)
    for message in prompt.messages:
        for part in message.parts:
            if isinstance(part, TextPart):
                text = part.text
                yield message.role, len(text), text[:_SAMPLE_CHARACTERS], text[-_SAMPLE_CHARACTERS:]
        if message.role is Role.USER:
            return
