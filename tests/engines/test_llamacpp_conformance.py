"""The llama.cpp engine passes the suite that every engine passes."""

import json

import pytest

from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import fetch
from tests.engines.shapes import SHAPE
from tests.suites.engine_case import EngineCase
from tests.suites.engine_suite import EngineSuite


async def busy_slots(model):
    """Slots that the worker itself says are at work."""
    _, body = await fetch(Endpoint.unix(model._worker.socket_path), "GET", "/slots", silence_seconds=10.0)
    return sum(slot["is_processing"] for slot in json.loads(body))


class TestLlamacpp(EngineSuite):
    @pytest.fixture
    async def case(self, engine, pocket, paths):
        return EngineCase(
            engine=engine,
            entry=pocket,
            shape=SHAPE,
            active_requests=busy_slots,
            prefix_folder=paths.prefixes,
        )
