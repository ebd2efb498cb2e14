"""How many bytes the state of a model takes, from its architecture: KV cache, recurrent state, checkpoints.

``footprint`` and ``reasons`` use it. The arithmetic here is llama.cpp's, ``kv_mlx`` has that of MLX: a
stream of cells for each slot, or one for all of them when the cache is unified; a cell holds one key
and one value vector of each layer and KV head; a layer with a window has only as many cells as the
window and one micro-batch need.
Invariant: integers throughout; what this says is what the engine allocates, to the byte.
"""

from __future__ import annotations

from autotuned.core.model import CacheLayout, LayerGroup, ModelFacts
from autotuned.core.plan import CONTEXT_CHECKPOINTS_COUNT, KvCacheType, LoadShape
from autotuned.policy import kv_mlx

CELLS_STEP = 256
QUANTISED_BLOCK_ELEMENTS = 32
QUANTISED_BLOCK_BYTES = 34
F16_ELEMENT_BYTES = 2
F32_ELEMENT_BYTES = 4
# A checkpoint notes position and sequence of each cell.
CHECKPOINT_CELL_BYTES = 12


def padded_context(tokens: int) -> int:
    """Cells for so many tokens: the next multiple of 256."""
    return -(-tokens // CELLS_STEP) * CELLS_STEP


def fits_blocks(vector_length: int, cache_type: KvCacheType) -> bool:
    """Whether a head's vector can be stored in this type: engines refuse one that ends inside a block."""
    return cache_type is KvCacheType.F16 or vector_length % QUANTISED_BLOCK_ELEMENTS == 0


def has_latent_attention(facts: ModelFacts) -> bool:
    """Whether keys stand for the values too. llama.cpp then takes one type for both, or does not load."""
    return any(group.kv_heads and not group.value_length for group in facts.layer_groups)


def vector_bytes(vector_length: int, cache_type: KvCacheType) -> int:
    """Bytes of one head's key or value vector: 2 an element in F16, 34 a block of 32 elements in Q8_0."""
    if cache_type is KvCacheType.F16:
        return vector_length * F16_ELEMENT_BYTES
    return -(-vector_length // QUANTISED_BLOCK_ELEMENTS) * QUANTISED_BLOCK_BYTES


def layer_cells(group: LayerGroup, shape: LoadShape) -> int:
    """Cells of one layer over all streams, with llama.cpp.

    A window takes its tokens (those of each sequence when one stream serves all) and one micro-batch,
    rounded up to a whole step, and never more than the context.
    """
    streams = 1 if shape.kv_unified else shape.slots_count
    cells = padded_context(shape.context_tokens)
    if group.window_tokens:
        sequences = shape.slots_count if shape.kv_unified else 1
        micro_batch_tokens = min(shape.micro_batch_tokens, shape.batch_tokens)
        wanted = group.window_tokens * sequences + micro_batch_tokens
        cells = padded_context(min(cells, wanted))
    return streams * cells


def kv_cache_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """Bytes of the attention cache over all layers. Llama 3.1 8B, for example, takes 128 KiB a token in F16.

    Without flash attention the values lie transposed, and each layer has room for the widest one.
    """
    if facts.cache_layout is CacheLayout.MLX:
        return kv_mlx.kv_cache_bytes(facts, shape)
    widest_value = 0
    if not shape.flash_attention:
        widest_value = max((group.kv_heads * group.value_length for group in facts.layer_groups), default=0)
    total = 0
    for group in facts.layer_groups:
        if not group.key_length:
            continue
        values = _values_bytes(group, shape)
        if group.value_length and not shape.flash_attention:
            values = vector_bytes(widest_value, shape.value_cache_type)
        total += group.layers_count * layer_cells(group, shape) * (_keys_bytes(group, shape) + values)
    return total


def recurrent_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """Bytes of the recurrent state: F32, one for each slot, whatever the context."""
    if facts.cache_layout is CacheLayout.MLX:
        return kv_mlx.recurrent_bytes(facts)
    return _sequence_state_bytes(facts) * shape.slots_count


def state_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """KV cache and recurrent state together: what the engine allocates when it loads."""
    return kv_cache_bytes(facts, shape) + recurrent_bytes(facts, shape)


def checkpoint_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """The most memory that checkpoints of all slots take; 0 for a model that can rewind.

    One holds what cannot be computed backwards: the windows of one sequence and its recurrent state.
    It grows with the conversation until the windows are full, so a short one takes less.
    """
    if facts.cache_layout is CacheLayout.MLX:
        return kv_mlx.checkpoint_bytes(facts, shape)
    if facts.rewinds:
        return 0
    cells_bytes = 0
    most_cells = 0
    for group in facts.layer_groups:
        cells = min(group.window_tokens, padded_context(shape.context_tokens))
        most_cells = max(most_cells, cells)
        row_bytes = _keys_bytes(group, shape) + _values_bytes(group, shape)
        cells_bytes += group.layers_count * cells * row_bytes
    one = cells_bytes + most_cells * CHECKPOINT_CELL_BYTES + _sequence_state_bytes(facts)
    return one * CONTEXT_CHECKPOINTS_COUNT * shape.slots_count


def _keys_bytes(group: LayerGroup, shape: LoadShape) -> int:
    """Keys of one cell in one layer."""
    return group.kv_heads * vector_bytes(group.key_length, shape.key_cache_type)


def _values_bytes(group: LayerGroup, shape: LoadShape) -> int:
    """Values of one cell in one layer."""
    return group.kv_heads * vector_bytes(group.value_length, shape.value_cache_type)


def _sequence_state_bytes(facts: ModelFacts) -> int:
    """Recurrent state of one sequence over all layers."""
    elements = 0
    for group in facts.layer_groups:
        elements += group.layers_count * group.recurrent_elements
    return elements * F32_ELEMENT_BYTES
