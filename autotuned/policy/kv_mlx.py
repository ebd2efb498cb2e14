"""How many bytes the state of a model takes in mlx_lm's caches.

``kv`` asks where the facts say that this is the layout. The arithmetic is mlx_lm's: a cache grows by 256
tokens; one with a window holds at most the window and the batch that pushes it on, exactly as many
tokens as were computed; recurrent state is the same whatever the context. Only layers that attend to
everything can be quantised: 8 bits an element, and a scale and a bias for each group of 64 or 32.
Invariant: integers throughout; what this says is what a whole context takes, which is allocated as it
is used. A cache that was cut back and grew again may take up to 255 tokens more.
"""

from __future__ import annotations

from autotuned.core.model import LayerGroup, ModelFacts
from autotuned.core.plan import CONTEXT_CHECKPOINTS_COUNT, KvCacheType, LoadShape

STEP_TOKENS = 256
# The largest group that all vectors divide into is taken.
GROUP_SIZES = (64, 32)
F32_ELEMENT_BYTES = 4


def layer_cells(group: LayerGroup, shape: LoadShape) -> int:
    """Tokens that one layer has room for when the context is full."""
    cells = -(-shape.context_tokens // STEP_TOKENS) * STEP_TOKENS
    if group.window_tokens:
        return min(cells, group.window_tokens - 1 + shape.batch_tokens)
    return cells


def kv_cache_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """Bytes of the attention caches over all layers."""
    group_size = _group_size(facts)
    return sum(
        group.layers_count * layer_cells(group, shape) * _cell_bytes(facts, group, shape, group_size)
        for group in facts.layer_groups
        if group.key_length
    )


def recurrent_bytes(facts: ModelFacts) -> int:
    """Bytes of the recurrent state of one sequence; MLX computes one at a time."""
    return sum(
        group.layers_count * (group.recurrent_bytes + group.recurrent_elements * F32_ELEMENT_BYTES)
        for group in facts.layer_groups
    )


def checkpoint_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """The most that the copies take which a model that cannot rewind goes back to."""
    if facts.rewinds:
        return 0
    group_size = _group_size(facts)
    windows = sum(
        group.layers_count * layer_cells(group, shape) * _cell_bytes(facts, group, shape, group_size)
        for group in facts.layer_groups
        if group.window_tokens
    )
    return CONTEXT_CHECKPOINTS_COUNT * (windows + recurrent_bytes(facts))


def saved_bytes(facts: ModelFacts, shape: LoadShape, tokens_count: int) -> int:
    """How large a saved state of so many tokens is."""
    group_size = _group_size(facts)
    cells = sum(
        group.layers_count
        * min(tokens_count, layer_cells(group, shape))
        * _cell_bytes(facts, group, shape, group_size)
        for group in facts.layer_groups
        if group.key_length
    )
    return cells + recurrent_bytes(facts)


def fits_groups(facts: ModelFacts) -> bool:
    """Whether the layers that can be quantised have vectors that divide into groups."""
    return _group_size(facts) > 0


def _cell_bytes(facts: ModelFacts, group: LayerGroup, shape: LoadShape, group_size: int) -> int:
    """Keys and values of one token in one layer."""
    elements = group.kv_heads * (group.key_length + group.value_length)
    if shape.key_cache_type is KvCacheType.F16 or group.window_tokens or not group_size:
        return elements * facts.cache_element_bytes
    return elements + elements // group_size * 2 * facts.cache_element_bytes


def _group_size(facts: ModelFacts) -> int:
    """Elements that share a scale and a bias; 0 where nothing can be quantised."""
    lengths = [
        length
        for group in facts.layer_groups
        if group.kv_heads and not group.window_tokens
        for length in (group.key_length, group.value_length)
        if length
    ]
    if not lengths:
        return 0
    return next((size for size in GROUP_SIZES if all(length % size == 0 for length in lengths)), 0)
