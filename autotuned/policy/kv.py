"""How many bytes a KV cache takes, from the architecture of a model.

``plan`` sizes loads with it. The arithmetic is llama.cpp's: a slot owns whole steps of cells, and
a cell holds one key and one value vector per layer and KV head. It is exact for dense and
grouped-query models and an upper bound where ``ModelFacts.kv_is_dense`` is False.
Invariant: integers throughout; what this says is what the engine allocates.
"""

from __future__ import annotations

from autotuned.core.model import ModelFacts
from autotuned.core.plan import KvCacheType

CELLS_STEP = 256
QUANTISED_BLOCK_ELEMENTS = 32
QUANTISED_BLOCK_BYTES = 34
F16_ELEMENT_BYTES = 2


def padded_context(tokens: int) -> int:
    """Cells that a slot of so many tokens really has: the next multiple of 256."""
    return -(-tokens // CELLS_STEP) * CELLS_STEP


def fits_blocks(vector_length: int, cache_type: KvCacheType) -> bool:
    """Whether a head's vector can be stored in this type: engines refuse one that ends inside a block."""
    return cache_type is KvCacheType.F16 or vector_length % QUANTISED_BLOCK_ELEMENTS == 0


def vector_bytes(vector_length: int, cache_type: KvCacheType) -> int:
    """Bytes of one head's key or value vector: 2 an element in F16, 34 a block of 32 elements in Q8_0."""
    if cache_type is KvCacheType.F16:
        return vector_length * F16_ELEMENT_BYTES
    return -(-vector_length // QUANTISED_BLOCK_ELEMENTS) * QUANTISED_BLOCK_BYTES


def cell_bytes(
    facts: ModelFacts,
    *,
    key_cache_type: KvCacheType,
    value_cache_type: KvCacheType,
    flash_attention: bool = True,
) -> int:
    """Bytes of one token over all layers.

    Without flash attention the values lie transposed, and each layer has room for the widest one.
    """
    heads = facts.kv_heads_per_layer
    key_heads = sum(heads)
    value_heads = key_heads if flash_attention else max(heads, default=0) * len(heads)
    key_bytes = key_heads * vector_bytes(facts.key_length, key_cache_type)
    return key_bytes + value_heads * vector_bytes(facts.value_length, value_cache_type)


def kv_cache_bytes(
    facts: ModelFacts,
    *,
    context_tokens: int,
    slots_count: int,
    key_cache_type: KvCacheType,
    value_cache_type: KvCacheType,
    flash_attention: bool = True,
) -> int:
    """Bytes of the whole cache: ``slots_count`` slots of ``context_tokens`` each, padded to whole steps.

    Llama 3.1 8B, for example, takes 128 KiB a token in F16.
    """
    per_cell = cell_bytes(
        facts,
        key_cache_type=key_cache_type,
        value_cache_type=value_cache_type,
        flash_attention=flash_attention,
    )
    return slots_count * padded_context(context_tokens) * per_cell
