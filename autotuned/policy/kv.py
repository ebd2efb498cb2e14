"""How many bytes the state of a model takes, from its architecture: KV cache, recurrent state, checkpoints.

``footprint`` and ``reasons`` use it. The arithmetic is llama.cpp's: a stream of cells for each slot, or
one for all of them when the cache is unified; a cell holds one key and one value vector of each layer
and KV head; a layer with a window has only as many cells as the window and one micro-batch need.
Invariant: integers throughout; what this says is what the engine allocates, to the byte.
"""

from __future__ import annotations

from autotuned.core.model import LayerGroup, ModelFacts
from autotuned.core.plan import KvCacheType, LoadShape

CELLS_STEP = 256
QUANTISED_BLOCK_ELEMENTS = 32
QUANTISED_BLOCK_BYTES = 34
F16_ELEMENT_BYTES = 2
F32_ELEMENT_BYTES = 4


def padded_context(tokens: int) -> int:
    """Cells for so many tokens: the next multiple of 256."""
    return -(-tokens // CELLS_STEP) * CELLS_STEP


def fits_blocks(vector_length: int, cache_type: KvCacheType) -> bool:
    """Whether a head's vector can be stored in this type: engines refuse one that ends inside a block."""
    return cache_type is KvCacheType.F16 or vector_length % QUANTISED_BLOCK_ELEMENTS == 0


def vector_bytes(vector_length: int, cache_type: KvCacheType) -> int:
    """Bytes of one head's key or value vector: 2 an element in F16, 34 a block of 32 elements in Q8_0."""
    if cache_type is KvCacheType.F16:
        return vector_length * F16_ELEMENT_BYTES
    return -(-vector_length // QUANTISED_BLOCK_ELEMENTS) * QUANTISED_BLOCK_BYTES


def layer_cells(group: LayerGroup, shape: LoadShape) -> int:
    """Cells of one layer over all streams."""
    streams = 1 if shape.kv_unified else shape.slots_count
    cells = padded_context(shape.context_tokens)
    if group.window_tokens:
        sequences = shape.slots_count if shape.kv_unified else 1
        wanted = group.window_tokens * sequences + shape.micro_batch_tokens
        cells = padded_context(min(cells, wanted))
    return streams * cells


def kv_cache_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """Bytes of the attention cache over all layers. Llama 3.1 8B, for example, takes 128 KiB a token in F16.

    Without flash attention the values lie transposed, and each layer has room for the widest one.
    """
    widest_value = max((group.kv_heads * group.value_length for group in facts.layer_groups), default=0)
    total = 0
    for group in facts.layer_groups:
        if not group.kv_heads:
            continue
        keys = group.kv_heads * vector_bytes(group.key_length, shape.key_cache_type)
        if not group.value_length:
            values = 0
        elif shape.flash_attention:
            values = group.kv_heads * vector_bytes(group.value_length, shape.value_cache_type)
        else:
            values = vector_bytes(widest_value, shape.value_cache_type)
        total += group.layers_count * layer_cells(group, shape) * (keys + values)
    return total


def recurrent_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """Bytes of the recurrent state: F32, one for each slot, whatever the context."""
    elements = sum(group.layers_count * group.recurrent_elements for group in facts.layer_groups)
    return elements * F32_ELEMENT_BYTES * shape.slots_count


def state_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """KV cache and recurrent state together."""
    return kv_cache_bytes(facts, shape) + recurrent_bytes(facts, shape)
