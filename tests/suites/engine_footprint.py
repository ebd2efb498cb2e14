"""What a loaded model takes, as its engine says, against what the system says."""

from __future__ import annotations

import psutil
import pytest

from autotuned.core.plan import KvCacheType
from tests.suites.engine_case import OneModel, needs_knobs

MEBIBYTE = 1 << 20
# The pocket model: 4 layers, 2 KV heads, keys and values of 32 elements.
F16_TOKEN_BYTES = 4 * 2 * (32 + 32) * 2
KNOBS = {
    "context_tokens": "context_tokens",
    "slots_count": "slots_count",
    "kv_unified": "slots_count",
    "key_cache_type": "cache_type",
    "value_cache_type": "cache_type",
}
CACHE_ELEMENTS = 4 * 2 * (32 + 32)


class EngineFootprint(OneModel):
    """One part of ``EngineSuite``."""

    async def test_a_footprint_has_every_part(self, case, model):
        if not case.tells_memory:
            pytest.skip("the server does not tell what a load takes")
        footprint = model.footprint
        assert footprint.weights_bytes + footprint.repacked_weights_bytes == pytest.approx(
            case.entry.facts.weights_bytes, rel=0.01
        )
        assert footprint.compute_bytes > 0
        assert (footprint.process_bytes > 0) == (model.process_id > 0)
        assert footprint.host_prompt_cache_bytes == 0

    @pytest.mark.parametrize(
        ("changes", "kv_cache_bytes"),
        [
            ({}, 2048 * F16_TOKEN_BYTES),
            ({"context_tokens": 4096}, 4096 * F16_TOKEN_BYTES),
            ({"slots_count": 3}, 3 * 2048 * F16_TOKEN_BYTES),
            ({"slots_count": 3, "kv_unified": True}, 2048 * F16_TOKEN_BYTES),
            (
                {"key_cache_type": KvCacheType.Q8_0, "value_cache_type": KvCacheType.Q8_0},
                None,
            ),
        ],
        ids=["one slot", "twice the context", "slots", "unified", "q8_0"],
    )
    async def test_the_kv_cache_is_what_the_shape_takes(self, case, changes, kv_cache_bytes):
        if not case.tells_memory:
            pytest.skip("the server does not tell what a load takes")
        needs_knobs(case, *(KNOBS[name] for name in changes))
        if not case.tells_memory:
            pytest.skip("the server does not tell what a load takes")
        model = await case.load(**changes)
        footprint = model.footprint
        await model.unload()
        if kv_cache_bytes is None:
            kv_cache_bytes = 2048 * CACHE_ELEMENTS * case.q8_0_element_bytes
        # Engines report in hundredths of a MiB.
        assert footprint.kv_cache_bytes == pytest.approx(kv_cache_bytes, abs=MEBIBYTE / 100)

    async def test_a_prompt_cache_counts_with_all_that_it_may_take(self, case):
        needs_knobs(case, "host_prompt_cache")
        model = await case.load(host_prompt_cache_bytes=32 * MEBIBYTE)
        footprint = model.footprint
        await model.unload()
        assert footprint.host_prompt_cache_bytes == 32 * MEBIBYTE

    @pytest.mark.parametrize("memory_mapped", [True, False])
    async def test_the_parts_make_up_the_memory_of_the_process(self, case, memory_mapped):
        if memory_mapped is not case.shape.memory_mapped:
            needs_knobs(case, "memory_mapped")
        model = await case.load(memory_mapped=memory_mapped)
        footprint, process_id = model.footprint, model.process_id
        resident_bytes = psutil.Process(process_id).memory_info().rss if process_id else 0
        await model.unload()
        if not process_id:
            pytest.skip("this engine has no process of its own")
        # Nothing was computed yet, so the buffers for that are not in memory.
        idle_bytes = footprint.total_bytes - footprint.compute_bytes
        assert idle_bytes == pytest.approx(resident_bytes, rel=0.05)
