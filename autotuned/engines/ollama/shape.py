"""The shape that a load has in Ollama, and the bytes that it takes.

``loading`` asks after each load. Invariant: a field that Ollama was neither told nor tells is among the
assumed ones; the context is the one that the server reports.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.memory import Footprint
from autotuned.core.model import LayerGroup, ModelFacts
from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.core.settings import OllamaSettings
from autotuned.engines.ollama.client import Running
from autotuned.engines.ollama.environment import MANAGED

MEBIBYTE = 1 << 20
F32_BYTES = 4
# Elements and bytes of what a type is stored in.
_BLOCKS = {KvCacheType.F16: (1, 2), KvCacheType.Q8_0: (32, 34)}
# Contexts of all slots above the first number have the second as their batch, if memory allows it.
_BATCHES = ((32768, 2048), (4096, 1024), (0, 512))
_NEVER_TOLD = ("batch_tokens", "micro_batch_tokens", "gpu_layers_count", "memory_mapped")
_TOLD_IN_MANAGED_MODE = (
    "slots_count",
    "key_cache_type",
    "value_cache_type",
    "flash_attention",
    "host_prompt_cache_bytes",
)


def applied_shape(planned: LoadShape, running: Running, settings: OllamaSettings) -> LoadShape:
    """What was applied, as far as it is known."""
    is_managed = settings.mode == MANAGED
    slots = settings.slots if is_managed else 1
    context_tokens = running.context_length or planned.context_tokens
    batch = next(size for above, size in _BATCHES if context_tokens * slots > above)
    cache_type = KvCacheType(settings.kv_cache) if is_managed else KvCacheType.F16
    assumed = (*_NEVER_TOLD, *(() if is_managed else _TOLD_IN_MANAGED_MODE))
    return replace(
        planned,
        context_tokens=context_tokens,
        slots_count=slots,
        kv_unified=False,
        key_cache_type=cache_type,
        value_cache_type=cache_type,
        batch_tokens=batch,
        micro_batch_tokens=batch,
        flash_attention=True,
        host_prompt_cache_bytes=(
            settings.prompt_cache_mib * MEBIBYTE if is_managed else planned.host_prompt_cache_bytes
        ),
        assumed=assumed if running.context_length else ("context_tokens", *assumed),
    )


def footprint_of(running: Running, facts: ModelFacts, shape: LoadShape) -> Footprint:
    """The sum that the server tells, split by what the file says; what it does not tell is 0."""
    state_bytes = sum(_state_bytes(group, shape) for group in facts.layer_groups)
    return Footprint(
        weights_bytes=facts.weights_bytes,
        repacked_weights_bytes=0,
        kv_cache_bytes=state_bytes,
        compute_bytes=max(0, running.size - facts.weights_bytes - state_bytes),
        process_bytes=0,
        host_prompt_cache_bytes=shape.host_prompt_cache_bytes,
    )


def _state_bytes(group: LayerGroup, shape: LoadShape) -> int:
    """What these layers keep: cells of all slots, and recurrent state beside them."""
    cells = shape.context_tokens
    if group.window_tokens:
        cells = min(cells, group.window_tokens + shape.micro_batch_tokens)
    elements, size = _BLOCKS[shape.key_cache_type]
    row_bytes = group.kv_heads * (group.key_length + group.value_length) // elements * size
    one_slot = cells * row_bytes + group.recurrent_elements * F32_BYTES
    return group.layers_count * shape.slots_count * one_slot
