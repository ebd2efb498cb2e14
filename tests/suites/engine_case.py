"""An engine to examine, requests for the pocket model, and what is in its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    Message,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolChoice,
)
from autotuned.core.engine import KnobScope
from autotuned.core.generation import (
    EngineEvent,
    EngineFinished,
    PrefillProgress,
    TextDelta,
)
from autotuned.core.model import LoadPhase, ModelEntry
from autotuned.core.plan import LoadShape
from autotuned.core.ports import Engine, LoadedModel

IDLE_SECONDS = 10.0
# The conversation of requests that do not care.
TALK = "talk"

WEATHER = Tool(
    "get_weather",
    "Get the weather in a city",
    '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
)
TIME = Tool(
    "get_time",
    "Get the local time in a city",
    '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
)
CITY_SCHEMA = '{"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCase:
    """An engine to examine.

    ``entry`` is the pocket model, ``shape`` one slot of 2,048 tokens in F16. ``active_requests``
    says how many requests the engine still works on, as the engine itself sees it. ``prefix_folder``
    is where prefixes are saved, None for an engine that saves none. ``tells_times`` and ``tells_memory``:
    its server says how long things took and how many bytes a load takes. ``load_phases``: where its loads
    can be seen to be. ``q8_0_element_bytes``: what it keeps an element of a Q8_0 cache of this model in.
    """

    engine: Engine
    entry: ModelEntry
    shape: LoadShape
    active_requests: Callable[[LoadedModel], Awaitable[int]]
    prefix_folder: Path | None = None
    tells_times: bool = True
    tells_memory: bool = True
    load_phases: tuple[LoadPhase, ...] = tuple(LoadPhase)
    q8_0_element_bytes: float = 34 / 32

    async def load(self, **changes: object) -> LoadedModel:
        """The model in the shape of this case, or one that differs."""
        return await self.engine.load(self.entry, replace(self.shape, **changes), lambda _: None)

    def slots(self, count: int) -> int:
        """So many slots, or the one that an engine has which knows no others."""
        return 1 if self.engine.capabilities().knobs.slots_count is KnobScope.NONE else count

    async def load_as_other(self) -> LoadedModel:
        """The model under another digest: to an engine, another model of the same dimensions."""
        assert self.entry.facts is not None
        facts = replace(self.entry.facts, digest="0" * 64)
        return await self.engine.load(replace(self.entry, facts=facts), self.shape, lambda _: None)


def needs(case: EngineCase, *features: str) -> None:
    """Skips a test of what the engine says it cannot do; that it is refused is another test's business."""
    able = case.engine.capabilities()
    for feature in features:
        if not getattr(able, feature):
            pytest.skip(f"this engine declares no {feature}")


def needs_knobs(case: EngineCase, *names: str) -> None:
    """Skips a test of loads that differ in what the engine lets no load decide."""
    for name in names:
        if getattr(case.engine.capabilities().knobs, name) is not KnobScope.LOAD:
            pytest.skip(f"with this engine no load decides {name}")


def needs_a_limit(model: LoadedModel) -> None:
    """Skips a test of prompts that are too long where nobody knows what that would be."""
    if "context_tokens" in model.shape.assumed:
        pytest.skip("this engine tells no limit of the context")


def user(text: str) -> Message:
    """A message of the person who asks."""
    return Message(Role.USER, (TextPart(text),))


def assistant(text: str) -> Message:
    """An answer."""
    return Message(Role.ASSISTANT, (TextPart(text),))


def ask(*messages: str | Message, tools: tuple[Tool, ...] = (), **fields: object) -> GenerationRequest:
    """A greedy request with these messages."""
    conversation = tuple(user(message) if isinstance(message, str) else message for message in messages)
    choice = fields.pop("tool_choice", ToolChoice())
    chat = ChatInput(conversation, tools, choice)
    return GenerationRequest(model="pocket", input=chat, **{"sampling": Sampling(temperature=0.0), **fields})


async def answer(
    model: LoadedModel, request: GenerationRequest, conversation: str = TALK
) -> list[EngineEvent]:
    """Every event of a generation."""
    async with aclosing(model.generate(request, conversation)) as events:
        return [event async for event in events]


def text_of(events: list[EngineEvent]) -> str:
    """The text of an answer."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def finish_of(events: list[EngineEvent]) -> EngineFinished:
    """The end, which comes once and last."""
    finishes = [event for event in events if isinstance(event, EngineFinished)]
    assert finishes == events[-1:]
    return finishes[0]


def progress_of(events: list[EngineEvent]) -> list[PrefillProgress]:
    """The progress of the prefill."""
    return [event for event in events if isinstance(event, PrefillProgress)]


async def until_idle(case: EngineCase, model: LoadedModel) -> None:
    """Waits until the engine works on nothing."""
    async with asyncio.timeout(IDLE_SECONDS):
        while await case.active_requests(model):  # noqa: ASYNC110 - the engine tells only when asked
            await asyncio.sleep(0.005)


class OneModel:
    """A part of the suite: most of its tests examine one loaded model."""

    @pytest.fixture
    async def model(self, case: EngineCase) -> AsyncIterator[LoadedModel]:
        """The model in the shape of the case."""
        model = await case.load()
        yield model
        await model.unload()
