"""What a loaded model takes, as its engine says, against what the system says."""

from __future__ import annotations

import psutil
import pytest

from autotuned.core.plan import KvCacheType
from tests.suites.engine_case import OneModel

MEBIBYTE = 1 << 20
# The pocket model: 4 layers, 2 KV heads, keys and values of 32 elements.
F16_TOKEN_BYTES = 4 * 2 * (32 + 32) * 2
Q8_0_TOKEN_BYTES = 4 * 2 * (32 + 32) * 34 // 32


class EngineFootprint(OneModel):
    """One part of ``EngineSuite``."""

    async def test_a_footprint_has_every_part(self, case, model):
        footprint = model.footprint
        assert footprint.weights_bytes + footprint.repacked_weights_bytes == pytest.approx(
            case.entry.facts.weights_bytes, rel=0.01
        )
        assert footprint.compute_bytes > 0
        assert footprint.process_bytes > 0
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
                2048 * Q8_0_TOKEN_BYTES,
            ),
        ],
        ids=["one slot", "twice the context", "slots", "unified", "q8_0"],
    )
    async def test_the_kv_cache_is_what_the_shape_takes(self, case, changes, kv_cache_bytes):
        model = await case.load(**changes)
        footprint = model.footprint
        await model.unload()
        # Engines report in hundredths of a MiB.
        assert footprint.kv_cache_bytes == pytest.approx(kv_cache_bytes, abs=MEBIBYTE / 100)

    async def test_a_prompt_cache_counts_with_all_that_it_may_take(self, case):
        model = await case.load(host_prompt_cache_bytes=32 * MEBIBYTE)
        footprint = model.footprint
        await model.unload()
        assert footprint.host_prompt_cache_bytes == 32 * MEBIBYTE

    @pytest.mark.parametrize("memory_mapped", [True, False])
    async def test_the_parts_make_up_the_memory_of_the_process(self, case, memory_mapped):
        model = await case.load(memory_mapped=memory_mapped)
        footprint, process_id = model.footprint, model.process_id
        resident_bytes = psutil.Process(process_id).memory_info().rss if process_id else 0
        await model.unload()
        if not process_id:
            pytest.skip("this engine has no process of its own")
        # Nothing was computed yet, so the buffers for that are not in memory.
        idle_bytes = footprint.total_bytes - footprint.compute_bytes
        assert idle_bytes == pytest.approx(resident_bytes, rel=0.05)
