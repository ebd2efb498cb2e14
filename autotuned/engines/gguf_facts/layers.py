"""What each layer of a model keeps, as groups of equal layers.

``facts`` asks. A layer keeps keys and values of every token, or of the tokens in a window, or a
recurrent state, or both, or nothing because it reads another layer's. The rules are those by which
llama.cpp builds its caches; the engine's log proves them in the tests.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from autotuned.core.model import LayerGroup
from autotuned.engines.gguf_facts.metadata import MAX_LAYERS, Metadata
from autotuned.engines.gguf_facts.recurrent import (
    attends_behind_trunk,
    has_both,
    recurrent_elements,
    recurrent_layers,
    without_state,
)
from autotuned.engines.gguf_facts.windows import window_tokens

MAX_LOOPS = 64
# Elements that one token, or one sequence, may add over all layers: the largest models have 2^19.
MAX_TOKEN_ELEMENTS = 1 << 26
MAX_SEQUENCE_ELEMENTS = 1 << 33

# Sparse attention: beside its keys a layer keeps those of an indexer.
_INDEXED = {"deepseek32", "dots3note", "glm-dsa"}
_GEMMA3N_OWN_KV_LAYERS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heads:
    """Lengths of one head's vectors in layers with and without a window, and KV heads of each layer."""

    kv_heads: tuple[int, ...]
    first_heads: int
    key_length: int
    value_length: int
    window_key_length: int
    window_value_length: int


def layer_groups(metadata: Metadata) -> tuple[LayerGroup, ...]:
    """The groups, those of the first layers first. Raises ``ModelInvalid`` for what no model has."""
    layers_count = metadata.number("block_count", least=1, most=MAX_LAYERS)
    counted = Counter(_layers(metadata, layers_count))
    loops = metadata.number("num_loops", 1, least=1, most=MAX_LOOPS)
    if metadata.architecture != "nanbeige":
        loops = 1
    groups = tuple(
        LayerGroup(
            layers_count=count * loops,
            kv_heads=layer.kv_heads,
            key_length=layer.key_length,
            value_length=layer.value_length,
            window_tokens=layer.window_tokens,
            recurrent_elements=layer.recurrent_elements,
        )
        for layer, count in counted.items()
    )
    if not any(group.key_length or group.recurrent_elements for group in groups):
        raise metadata.invalid("has neither attention heads nor recurrent layers")
    _bound(metadata, groups)
    return groups


def _layers(metadata: Metadata, layers_count: int) -> list[LayerGroup]:
    """Each layer alone."""
    heads = _heads(metadata, layers_count)
    trunk_count = layers_count - metadata.number("nextn_predict_layers", 0, most=layers_count - 1)
    windows = window_tokens(metadata, layers_count, trunk_count)
    recurrent = recurrent_layers(metadata, heads.kv_heads, trunk_count)
    elements = recurrent_elements(metadata, heads.first_heads, heads.key_length) if any(recurrent) else 0
    stateless = without_state(metadata, layers_count)
    own_kv_count = layers_count if attends_behind_trunk(metadata, recurrent) else trunk_count
    own_kv_count = min(own_kv_count, _own_kv_count(metadata, layers_count))
    keeps_both = has_both(metadata, heads.kv_heads)
    layers = []
    for layer in range(layers_count):
        has_kv = layer < own_kv_count and not stateless[layer]
        if recurrent[layer]:
            has_kv = keeps_both and heads.kv_heads[layer] > 0
        layers.append(
            LayerGroup(
                layers_count=1,
                kv_heads=heads.kv_heads[layer] if has_kv else 0,
                key_length=(heads.window_key_length if windows[layer] else heads.key_length) * has_kv,
                value_length=(heads.window_value_length if windows[layer] else heads.value_length) * has_kv,
                window_tokens=windows[layer] * has_kv,
                recurrent_elements=elements * recurrent[layer],
            )
        )
    return layers


def _heads(metadata: Metadata, layers_count: int) -> _Heads:
    none = (0,) * layers_count
    width = metadata.number("embedding_length", least=1)
    heads = metadata.per_layer("attention.head_count", layers_count, none)
    kv_heads = metadata.per_layer("attention.head_count_kv", layers_count, heads)
    # llama.cpp looks at the first layer: without heads there, it takes a model to have none at all.
    length = width // heads[0] if heads[0] else 0
    has_heads = heads[0] > 0 or metadata.architecture == "plamo2"
    key_length = metadata.number("attention.key_length", length) * has_heads
    value_length = metadata.number("attention.value_length", length) * has_heads
    is_latent = metadata.number("attention.key_length_mla", 0) and metadata.number(
        "attention.value_length_mla", 0
    )
    index_length = 0
    if metadata.architecture in _INDEXED:
        index_length = metadata.number("attention.indexer.key_length", 0)
    return _Heads(
        kv_heads=kv_heads,
        first_heads=heads[0],
        key_length=key_length + index_length,
        value_length=0 if is_latent else value_length,
        window_key_length=metadata.number("attention.key_length_swa", key_length),
        window_value_length=0 if is_latent else metadata.number("attention.value_length_swa", value_length),
    )


def _own_kv_count(metadata: Metadata, layers_count: int) -> int:
    """So many first layers have a cache of their own; those behind them read it."""
    if metadata.architecture == "gemma3n":
        return _GEMMA3N_OWN_KV_LAYERS
    if metadata.architecture == "gemma4":
        return layers_count - metadata.number("attention.shared_kv_layers", 0, most=layers_count)
    return layers_count


def _bound(metadata: Metadata, groups: tuple[LayerGroup, ...]) -> None:
    """Refuses products that no model has, so that no later number outgrows what can be sent.

    Without flash attention every layer has room for the widest values.
    """
    widest_value = max(group.kv_heads * group.value_length for group in groups)
    token_elements = sum(
        group.layers_count * (group.kv_heads * group.key_length + widest_value)
        for group in groups
        if group.key_length
    )
    sequence_elements = sum(group.layers_count * group.recurrent_elements for group in groups)
    if token_elements > MAX_TOKEN_ELEMENTS:
        raise metadata.invalid(f"claims {token_elements:,} cached numbers for each token, which no model has")
    if sequence_elements > MAX_SEQUENCE_ELEMENTS:
        raise metadata.invalid(
            f"claims {sequence_elements:,} cached numbers for each sequence, which no model has"
        )
