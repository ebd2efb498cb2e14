"""Which layers of a model keep a recurrent state, and how many numbers each keeps of one sequence.

``layers`` asks. A layer keeps the last inputs of its convolution and the state of its recurrence, in
F32 whatever the KV cache type is. The formulas are those of llama.cpp's ``llama-hparams``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotuned.engines.llamacpp.metadata import Metadata

# The layers with this state are those without KV heads.
_BY_HEADS = {"bailingmoe3", "granitehybrid", "jamba", "kimi-k3", "kimi-linear", "lfm2", "lfm2moe", "plamo2"}
# They are those without KV heads and without a feed-forward part.
_BY_HEADS_AND_FEED_FORWARD = {"nemotron_h", "nemotron_h_moe"}
# They are listed, or all but the last one of each interval.
_BY_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
_ALL = {"arwkv7", "falcon-h1", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"}
# Layers of these have both kinds of state.
WITH_ATTENTION = {"falcon-h1"}


def recurrent_layers(metadata: Metadata, kv_heads: Sequence[int], trunk_count: int) -> tuple[bool, ...]:
    """Which layers keep a recurrent state. Prediction layers behind the trunk never do."""
    architecture = metadata.architecture
    layers_count = len(kv_heads)
    if architecture in _ALL:
        found: Sequence[bool] = (True,) * layers_count
    elif architecture in _BY_HEADS:
        found = [heads == 0 for heads in kv_heads]
    elif architecture in _BY_HEADS_AND_FEED_FORWARD:
        widths = feed_forward_lengths(metadata, layers_count)
        found = [heads == 0 and width == 0 for heads, width in zip(kv_heads, widths, strict=True)]
    elif architecture in _BY_INTERVAL:
        found = _by_interval(metadata, layers_count)
    else:
        found = (False,) * layers_count
    return tuple(is_recurrent and layer < trunk_count for layer, is_recurrent in enumerate(found))


def without_state(metadata: Metadata, layers_count: int) -> tuple[bool, ...]:
    """Which layers are feed-forward alone and have no place in any cache."""
    if metadata.architecture not in _BY_HEADS_AND_FEED_FORWARD:
        return (False,) * layers_count
    return tuple(width > 0 for width in feed_forward_lengths(metadata, layers_count))


def feed_forward_lengths(metadata: Metadata, layers_count: int) -> tuple[int, ...]:
    """Width of each layer's feed-forward part."""
    return metadata.per_layer("feed_forward_length", layers_count, (0,) * layers_count)


def recurrent_elements(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """Numbers that one recurrent layer keeps of one sequence.

    ``heads_count`` and ``key_length`` are those of the first layer. Raises ``ModelInvalid``.
    """
    formula = _FORMULAS.get(metadata.architecture, _state_space)
    return formula(metadata, heads_count, key_length)


def _by_interval(metadata: Metadata, layers_count: int) -> Sequence[bool]:
    listed = metadata.flags("attention.recurrent_layers", layers_count)
    if listed is not None:
        return listed
    interval = metadata.number("full_attention_interval", _BY_INTERVAL[metadata.architecture], least=1)
    return [(layer + 1) % interval != 0 for layer in range(layers_count)]


def _state_space(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """Mamba and gated delta nets: the convolution runs over the inner state, and over groups of B and C."""
    del heads_count, key_length
    inner = metadata.number("ssm.inner_size")
    state = metadata.number("ssm.state_size")
    groups = 0 if metadata.architecture in {"mamba", "jamba"} else metadata.number("ssm.group_count", 0)
    return _convolved(metadata, default=1) * (inner + 2 * groups * state) + state * inner


def _receptance(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """RWKV: the last tokens of both shifts, and a square of each head."""
    del heads_count, key_length
    width = metadata.number("embedding_length")
    return width * (metadata.number("token_shift_count", 2) + metadata.number("wkv.head_size"))


def _short_convolution(metadata: Metadata, heads_count: int, key_length: int) -> int:
    del heads_count, key_length
    return metadata.number("embedding_length") * (metadata.number("shortconv.l_cache", least=1) - 1)


def _delta_attention(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """Kimi's delta attention: convolutions of queries, keys and values, and a square of each head."""
    del key_length
    length = metadata.number("kda.head_dim")
    return heads_count * length * (3 * _convolved(metadata, default=4) + length)


def _lightning(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """MiniMax' lightning attention: a square of each head."""
    del metadata
    return heads_count * key_length * key_length


def _convolved(metadata: Metadata, default: int) -> int:
    """Inputs that a convolution keeps: one fewer than it is wide."""
    return (metadata.number("ssm.conv_kernel", default) or default) - 1


_FORMULAS: dict[str, Callable[[Metadata, int, int], int]] = {
    "arwkv7": _receptance,
    "bailingmoe3": _delta_attention,
    "kimi-k3": _delta_attention,
    "kimi-linear": _delta_attention,
    "lfm2": _short_convolution,
    "lfm2moe": _short_convolution,
    "minimax-01": _lightning,
    "rwkv6": _receptance,
    "rwkv6qwen2": _receptance,
    "rwkv7": _receptance,
}
