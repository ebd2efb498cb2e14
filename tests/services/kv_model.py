"""A loaded model that only keeps KV state: exact about what is in a slot, in a file and in neither.

It holds what the real engine promises: a slot has one conversation, the free one that was used longest ago
is taken over, a restore replaces what a slot held, and only the longest common beginning is reused.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from autotuned.core.chat import ChatInput, GenerationRequest, Message, Role, TextPart
from autotuned.core.errors import EngineUnreachable
from autotuned.core.generation import Usage
from autotuned.core.model import ModelEntry
from autotuned.core.prefix import WrittenPrefix
from tests.engines.shapes import SHAPE
from tests.examples import POCKET

ENTRY = ModelEntry(id="pocket", engine="scripted", path="/nowhere", size_bytes=1, facts=POCKET)
SECONDS_PER_TOKEN = 0.01
BYTES_PER_TOKEN = 1028  # of the pocket model, with the token itself
REPLY = ["reply"] * 5


def text(role, words, word="word"):
    return Message(role, (TextPart(f"{word} " * words),))


SYSTEM = text(Role.SYSTEM, 500, "system")
FIRST = text(Role.USER, 40, "first")
ANSWER = Message(Role.ASSISTANT, (TextPart(" ".join(REPLY)),))
SECOND = text(Role.USER, 200, "second")
OTHER = text(Role.USER, 40, "other")


def ask(*messages, **options):
    return GenerationRequest(model="pocket", input=ChatInput(messages), **options)


def tokens_of(request):
    return [
        word for message in request.input.messages for part in message.parts for word in part.text.split()
    ]


class KvModel:
    """``folder`` is the prefix folder. ``gate`` makes saves wait; ``refusal`` is raised by them."""

    def __init__(self, folder, incarnation_id="one", **shape):
        self.incarnation_id = incarnation_id
        self.shape = replace(SHAPE, **shape)
        self.is_gone = False
        self.saves = []
        self.file_names = []
        self.restores = []
        self.gate = None
        self.saving = asyncio.Event()
        self.refusal = None
        self._folder = folder
        self._slots = [("", []) for _ in range(self.shape.slots_count)]  # the first was used longest ago

    def holds(self, conversation):
        return any(name == conversation for name, _ in self._slots)

    async def save_prefix(self, conversation, file_name):
        self.saves.append(conversation)
        self.file_names.append(file_name)
        tokens = next((tokens for name, tokens in self._slots if name == conversation), [])
        content = json.dumps(tokens).encode().ljust(len(tokens) * BYTES_PER_TOKEN)
        (self._folder / file_name).write_bytes(content)
        self.saving.set()
        if self.gate:
            await self.gate.wait()
        if self.refusal:
            raise self.refusal
        return WrittenPrefix(len(tokens), len(content) if tokens else 0)

    async def restore_prefix(self, conversation, file_name):
        if self.is_gone:
            raise EngineUnreachable("it is gone")
        self.restores.append(conversation)
        try:
            tokens = json.loads((self._folder / file_name).read_bytes())
        except ValueError:
            return 0
        self._put(conversation, tokens)
        return len(tokens)

    def evaluate(self, request, conversation):
        """Serves a request; what is common with the slot's state is cached."""
        prompt = tokens_of(request)
        mine = next((tokens for name, tokens in self._slots if name == conversation), self._slots[0][1])
        cached = next(
            (i for i, (a, b) in enumerate(zip(mine, prompt, strict=False)) if a != b),
            min(len(mine), len(prompt)),
        )
        self._put(conversation, prompt + REPLY)
        return Usage(len(prompt), cached, len(REPLY))

    def _put(self, conversation, tokens):
        taken = next((slot for slot in self._slots if slot[0] == conversation), self._slots[0])
        self._slots.remove(taken)
        self._slots.append((conversation, tokens))


async def serve(prefixes, loaded, request):
    """One request as ``services.generation`` runs it; returns the tokens that were cached."""
    chain = prefixes.chain(request, ENTRY, loaded, "1")
    await prefixes.before_request(loaded, ENTRY, chain)
    usage = loaded.evaluate(request, chain.conversation)
    seconds = (usage.prompt_tokens - usage.cached_tokens) * SECONDS_PER_TOKEN
    prefixes.after_request(loaded, ENTRY, chain, usage, seconds, discard=request.discard)
    return usage.cached_tokens
