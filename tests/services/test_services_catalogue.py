"""Engines that come and go while their models are listed."""

from __future__ import annotations

import asyncio

import pytest

from autotuned.core.engine import EngineState
from autotuned.core.errors import EngineUnreachable
from autotuned.services.catalogue import Catalogue
from tests.services.instant import InstantEngine


class SlowEngine(InstantEngine):
    """One that lists its models when it is told to."""

    def __post_init__(self):
        super().__post_init__()
        self.is_asked = asyncio.Event()
        self.may_tell = asyncio.Event()

    async def models(self):
        self.is_asked.set()
        await self.may_tell.wait()
        return self.entries


async def test_an_engine_that_comes_back_meanwhile_is_not_taken_for_one_without_the_model():
    server = InstantEngine("ollama", state=EngineState.UNREACHABLE, detail="nothing answers")
    slow = SlowEngine("lab")
    finding = asyncio.create_task(Catalogue([server, slow]).find("pocket", "ollama"))
    await slow.is_asked.wait()
    server.state, server.detail = EngineState.READY, ""
    slow.may_tell.set()
    with pytest.raises(EngineUnreachable, match="nothing answers"):
        await finding
