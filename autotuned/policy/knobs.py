"""What of a load's shape an engine lets anybody decide: the rest is assumed and never set.

``services.models`` fits the configured defaults to each engine before anything is planned. Invariant: a
plan sets nothing that the engine does not honour at a load.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.engine import Capabilities, Knobs, KnobScope
from autotuned.policy.situation import ShapeDefaults

# What engines that do not tell their batch are taken to compute at once: Ollama's and LM Studio's default.
ASSUMED_BATCH_TOKENS = 512

_FIELDS = {
    "context_tokens": ("context_tokens",),
    "slots_count": ("slots_count",),
    "cache_type": ("key_cache_type", "value_cache_type"),
    "flash_attention": ("flash_attention",),
    "batch_tokens": ("batch_tokens", "micro_batch_tokens"),
    "gpu_layers_count": ("gpu_layers_count",),
    "host_prompt_cache": ("host_prompt_cache_bytes",),
    "memory_mapped": ("memory_mapped",),
}


def engine_defaults(base: ShapeDefaults, capabilities: Capabilities) -> ShapeDefaults:
    """What is configured, as far as this engine honours it."""
    knobs = capabilities.knobs
    cache_is_open = knobs.cache_type is KnobScope.LOAD
    return replace(
        base,
        slots_count=capabilities.slots_count,
        gpu=base.gpu or capabilities.has_gpu,
        batch_tokens=capabilities.batch_tokens
        if knobs.batch_tokens is KnobScope.LOAD
        else ASSUMED_BATCH_TOKENS,
        kv_cache=base.kv_cache if cache_is_open else capabilities.server_cache_type.value,
        prompt_cache_share=base.prompt_cache_share if knobs.host_prompt_cache is KnobScope.LOAD else 0.0,
        assumed=assumed_fields(knobs),
    )


def assumed_fields(knobs: Knobs) -> tuple[str, ...]:
    """The fields of a shape that the engine decides for itself."""
    return tuple(
        name
        for knob, names in _FIELDS.items()
        if getattr(knobs, knob) in {KnobScope.NONE, KnobScope.REQUEST}
        for name in names
    )
