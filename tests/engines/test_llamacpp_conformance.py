"""The llama.cpp engine passes the suite that every engine passes."""

import json

import pytest

from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.engines.llamacpp.connection import fetch
from tests.suites.engine_suite import EngineCase, EngineSuite

SHAPE = LoadShape(
    context_tokens=2048,
    slots_count=1,
    key_cache_type=KvCacheType.F16,
    value_cache_type=KvCacheType.F16,
    batch_tokens=512,
    micro_batch_tokens=512,
    flash_attention=True,
    gpu_layers_count=0,
)


async def busy_slots(model):
    """Slots that the worker itself says are at work."""
    _, body = await fetch(str(model._worker.socket_path), "GET", "/slots", silence_seconds=10.0)
    return sum(slot["is_processing"] for slot in json.loads(body))


class TestLlamacpp(EngineSuite):
    @pytest.fixture
    async def case(self, make_engine):
        engine = make_engine()
        entry = next(entry for entry in await engine.models() if entry.id == "pocket")
        return EngineCase(engine=engine, entry=entry, shape=SHAPE, active_requests=busy_slots)
