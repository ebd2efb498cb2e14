"""What the tests of the LM Studio adapter share: engines on the double, closed with proof."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import httpx

from autotuned.core.settings import LmstudioSettings
from autotuned.engines.lmstudio.engine import LmstudioEngine
from tests.engines.conftest import SystemClock
from tests.engines.shapes import SHAPE
from tests.fakes.lmstudio.start import LmStudio, running_lmstudio
from tests.suites.engine_case import EngineCase

FOREIGN = {"model": "pocket", "context_length": 2048}


def engine_on(
    double: LmStudio, *, environment: dict[str, str] | None = None, **settings: Any
) -> LmstudioEngine:
    """An engine that looks at this double and at its files."""
    folder = double.models_folder
    return LmstudioEngine(
        settings=LmstudioSettings(url=double.url, **settings),
        clock=SystemClock(),
        models_folder=folder,
        home=folder.parents[1],
        environment=environment or {},
    )


@asynccontextmanager
async def opened(double: LmStudio, **arguments: Any) -> AsyncIterator[LmstudioEngine]:
    """An engine for the time of a test."""
    engine = engine_on(double, **arguments)
    try:
        await engine.refresh()
        yield engine
    finally:
        await engine.close()


async def case_of(double: LmStudio, engine: LmstudioEngine, **shape: Any) -> EngineCase:
    """The pocket model, and what the double says of its work."""

    async def active_requests(_model: object) -> int:
        return int((await double.state())["active_requests"])

    [entry] = [entry for entry in await engine.models() if entry.id == "pocket"]
    return EngineCase(
        engine=engine, entry=entry, shape=replace(SHAPE, **shape), active_requests=active_requests
    )


async def instances_of(double: LmStudio) -> list[dict[str, Any]]:
    """What the double has in memory."""
    return list((await double.state())["instances"])


async def load_in_the_app(double: LmStudio, **changes: Any) -> str:
    """Somebody else loads the pocket model; returns the id of the instance."""
    answer = await double.client.post("/api/v1/models/load", json=FOREIGN | changes)
    return str(answer.raise_for_status().json()["instance_id"])


@contextmanager
def shared_lmstudio(**settings: Any) -> Iterator[LmStudio]:
    """The double for several tests, each with an event loop of its own: ``with_own_client`` for each."""
    with ThreadPoolExecutor(1) as thread, asyncio.Runner() as runner:
        running = running_lmstudio(**settings)
        double = thread.submit(runner.run, running.__aenter__()).result()
        try:
            yield double
        finally:
            thread.submit(runner.run, running.__aexit__(None, None, None)).result()


@asynccontextmanager
async def with_own_client(double: LmStudio) -> AsyncIterator[LmStudio]:
    """The same server, to be controlled from this event loop."""
    async with httpx.AsyncClient(
        base_url=double.url, headers=double.client.headers, trust_env=False
    ) as client:
        yield replace(double, client=client)


async def unload_all(double: LmStudio) -> None:
    """Afterwards nothing is loaded, whoever loaded it."""
    for instance in await instances_of(double):
        await double.client.post("/api/v1/models/unload", json={"instance_id": instance["id"]})
