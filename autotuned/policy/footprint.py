"""What a model will take in a shape, before it is loaded.

``draft``, ``plan`` and ``shrinking`` ask. Every byte of state is computed. The other parts are taken from
an earlier load of the same content, so far as it measured them, and computed from there; before the
first load they are estimates.
Invariant: pure integers; with an earlier load of the same mapping, only the process is not exact.
"""

from __future__ import annotations

from typing import NamedTuple

from autotuned.core.learning import Learned, MeasuredLoad
from autotuned.core.memory import Footprint
from autotuned.core.model import CacheLayout, LayerGroup, ModelFacts
from autotuned.core.plan import LoadShape
from autotuned.policy.kv import checkpoint_bytes, layer_cells, state_bytes

# What llama.cpp's CPU backend copies into another order where it has AVX2 (seen in its load logs); with
# AVX-512 or on ARM it may copy more types, which the first load tells.
REPACKED_TYPES = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
# The worker before it has a model, and what it keeps of each token of the vocabulary: its text, its
# place in two tables, its merges. Measured with 2,048, 32,000 and 150,000 tokens.
PROCESS_BYTES = 33 << 20
PROCESS_BYTES_PER_TOKEN = 415
# The same of a worker with mlx_lm, with 2,048, 32,000 and 150,000 tokens.
MLX_PROCESS_BYTES = 84 << 20
MLX_PROCESS_BYTES_PER_TOKEN = 1000

F32_BYTES = 4
F16_BYTES = 2
# A micro-batch holds for each of its tokens so many vectors as wide as the model, and so many as wide
# as its feed-forward part, while it computes one layer. Seen over six sizes of llama, to the byte.
EMBEDDING_VECTORS = 5
FEED_FORWARD_VECTORS = 3
# How much wider than the model a feed-forward part is taken to be, at least and at most.
NARROWEST_FEED_FORWARD = 2
WIDEST_FEED_FORWARD = 8


def estimate_footprint(facts: ModelFacts, shape: LoadShape, learned: Learned) -> Footprint:
    """Bytes of this shape. ``compute_bytes`` are in memory once a whole micro-batch was computed."""
    load = _nearest(shape, learned.loads)
    weights_bytes, repacked_bytes = _weights(facts, shape, load)
    return Footprint(
        weights_bytes=weights_bytes,
        repacked_weights_bytes=repacked_bytes,
        kv_cache_bytes=state_bytes(facts, shape) + checkpoint_bytes(facts, shape),
        compute_bytes=_compute_bytes(facts, shape, load),
        process_bytes=load.footprint.process_bytes if load else _process_bytes(facts),
        host_prompt_cache_bytes=shape.host_prompt_cache_bytes,
    )


def prefers_mapping(facts: ModelFacts) -> bool:
    """Whether the weights are better mapped than read.

    Mapped weights load three times as fast and can be dropped when memory is short. But what the engine
    repacks it has in memory of its own, and then the mapped file is a second copy of it for nothing.
    MLX reads them.
    """
    if facts.cache_layout is CacheLayout.MLX:
        return False
    return 2 * _repacked_bytes(facts) < facts.weights_bytes


def _process_bytes(facts: ModelFacts) -> int:
    if facts.cache_layout is CacheLayout.MLX:
        return MLX_PROCESS_BYTES + MLX_PROCESS_BYTES_PER_TOKEN * facts.vocabulary_size
    return PROCESS_BYTES + PROCESS_BYTES_PER_TOKEN * facts.vocabulary_size


def _nearest(shape: LoadShape, loads: tuple[MeasuredLoad, ...]) -> MeasuredLoad | None:
    """The load that says most of this shape: attention decides most, then the batch, then mapping."""
    best, best_rank = None, -1
    for load in loads:
        known = load.shape
        rank = (
            4 * (known.flash_attention is shape.flash_attention)
            + 2 * (known.micro_batch_tokens == shape.micro_batch_tokens)
            + (known.memory_mapped is shape.memory_mapped)
        )
        if rank >= best_rank:
            best, best_rank = load, rank
    return best


def _weights(facts: ModelFacts, shape: LoadShape, load: MeasuredLoad | None) -> tuple[int, int]:
    """Weights as they are in the file, and repacked: the mapped file has those that are repacked, too."""
    if load is not None and load.shape.memory_mapped is shape.memory_mapped:
        return load.footprint.weights_bytes, load.footprint.repacked_weights_bytes
    repacked_bytes = load.footprint.repacked_weights_bytes if load else _repacked_bytes(facts)
    if shape.memory_mapped:
        return facts.weights_bytes, repacked_bytes
    return max(0, facts.weights_bytes - repacked_bytes), repacked_bytes


def _repacked_bytes(facts: ModelFacts) -> int:
    """At most: the token embeddings keep their order, and the file's facts do not tell their type."""
    return sum(size for name, size in facts.weights_bytes_by_type if name in REPACKED_TYPES)


def _compute_bytes(facts: ModelFacts, shape: LoadShape, load: MeasuredLoad | None) -> int:
    """Buffers of one micro-batch: what each token needs, its view of the cache, and the last logits."""
    if facts.cache_layout is CacheLayout.MLX:
        return _mlx_compute_bytes(facts, shape, load)
    tokens = _micro_batch_tokens(shape)
    views = _view_bytes(facts, shape)
    extra = tokens * (views.reported + views.unreported) + _logits_bytes(facts, shape)
    if load is None or load.shape.flash_attention is not shape.flash_attention:
        return tokens * _activation_bytes(facts) + extra
    known_tokens = _micro_batch_tokens(load.shape)
    known_extra = known_tokens * _view_bytes(facts, load.shape).reported + _logits_bytes(facts, load.shape)
    activations = max(0, load.footprint.compute_bytes - known_extra)
    return activations * tokens // known_tokens + extra


def _mlx_compute_bytes(facts: ModelFacts, shape: LoadShape, load: MeasuredLoad | None) -> int:
    """MLX computes a whole batch at once, and no scores of attention are kept where its kernels are fused."""
    tokens = max(1, shape.batch_tokens)
    if load is None:
        return tokens * _activation_bytes(facts) + facts.vocabulary_size * F32_BYTES
    return load.footprint.compute_bytes * tokens // max(1, load.shape.batch_tokens)


def _micro_batch_tokens(shape: LoadShape) -> int:
    return max(1, min(shape.micro_batch_tokens, shape.batch_tokens))


def _logits_bytes(facts: ModelFacts, shape: LoadShape) -> int:
    """One row of the vocabulary for each slot."""
    return shape.slots_count * facts.vocabulary_size * F32_BYTES


class _View(NamedTuple):
    """Bytes that one token takes for the cells that it may look at.

    ``reported`` are in the buffers that the engine reports, ``unreported`` in one that it makes at work.
    """

    reported: int
    unreported: int


def _view_bytes(facts: ModelFacts, shape: LoadShape) -> _View:
    """With flash attention a mask in F16, and another one for layers with a window.

    Without it masks are F32, and each head has its scores in F32, those of one layer at a time; the
    product with F16 values copies them to F16.
    """
    streams = 1 if shape.kv_unified else shape.slots_count
    full_cells = window_cells = heads = 0
    for group in facts.layer_groups:
        if not group.key_length:
            continue
        cells = layer_cells(group, shape) // streams
        heads = max(heads, facts.embedding_length // group.key_length)
        if group.window_tokens:
            window_cells = max(window_cells, cells)
        else:
            full_cells = max(full_cells, cells)
    if shape.flash_attention:
        return _View(F16_BYTES * (full_cells + window_cells), 0)
    scores = heads * max(full_cells, window_cells)
    return _View(F32_BYTES * (full_cells + window_cells + scores), F16_BYTES * scores)


def _activation_bytes(facts: ModelFacts) -> int:
    """Bytes of activations of one token."""
    wide = facts.embedding_length
    vectors = EMBEDDING_VECTORS * wide + FEED_FORWARD_VECTORS * _feed_forward_length(facts)
    return vectors * F32_BYTES


def _feed_forward_length(facts: ModelFacts) -> int:
    """How wide the feed-forward part probably is: what is left of a layer's parameters after attention."""
    wide = max(1, facts.embedding_length)
    layers = max(1, facts.layers_count)
    kv_rows = max((_kv_rows(group) for group in facts.layer_groups), default=0)
    a_layer = (facts.parameters_count - facts.vocabulary_size * wide) // layers
    length = (a_layer - 2 * wide * wide - wide * kv_rows) // (FEED_FORWARD_VECTORS * wide)
    return min(max(length, NARROWEST_FEED_FORWARD * wide), WIDEST_FEED_FORWARD * wide)


def _kv_rows(group: LayerGroup) -> int:
    return group.kv_heads * (group.key_length + group.value_length)
