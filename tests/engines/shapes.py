"""The shape that tests load, and ways to differ from it."""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.plan import KvCacheType, LoadShape

SHAPE = LoadShape(
    context_tokens=2048,
    slots_count=1,
    kv_unified=False,
    key_cache_type=KvCacheType.F16,
    value_cache_type=KvCacheType.F16,
    batch_tokens=512,
    micro_batch_tokens=512,
    flash_attention=True,
    gpu_layers_count=0,
    host_prompt_cache_bytes=0,
    memory_mapped=True,
)


def shape(**changes: object) -> LoadShape:
    """A shape of one slot with 2,048 tokens, or what differs from it."""
    return replace(SHAPE, **changes)
