"""Which layers of a model keep a recurrent state, and how many numbers each keeps of one sequence.

``layers`` asks. A layer keeps the last inputs of its convolution and the state of its recurrence, in
F32 whatever the KV cache type is. The formulas are those of llama.cpp's ``llama-hparams``.
Invariant: a file with the keys of a recurrence has recurrent layers, also when its architecture is
newer than this table; then as many layers have state, and as large a one, as the keys allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotuned.engines.gguf_facts.metadata import Metadata

# The layers with this state are those without KV heads.
_BY_HEADS = {"bailingmoe3", "granitehybrid", "jamba", "kimi-k3", "kimi-linear", "lfm2", "lfm2moe", "plamo2"}
# They are those without KV heads and without a feed-forward part.
_BY_HEADS_AND_FEED_FORWARD = {"nemotron_h", "nemotron_h_moe"}
# They are listed, or all but the last one of each interval.
_BY_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
_ALL = {"arwkv7", "falcon-h1", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"}
# Beside its keys a layer keeps the sums that it compresses; how many, the file does not say.
_COMPRESSED = {"deepseek4"}
# Layers of these have both kinds of state.
_WITH_ATTENTION = {"falcon-h1", *_COMPRESSED}
_SIZES = ("ssm.state_size", "wkv.head_size", "kda.head_dim", "shortconv.l_cache")


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
        found = _by_interval(metadata, layers_count, _BY_INTERVAL[architecture])
    elif architecture in _COMPRESSED or _is_recurrent(metadata):
        found = _unknown(metadata, kv_heads)
    else:
        found = (False,) * layers_count
    return tuple(is_recurrent and layer < trunk_count for layer, is_recurrent in enumerate(found))


def has_both(metadata: Metadata, kv_heads: Sequence[int]) -> bool:
    """Whether a recurrent layer that has KV heads keeps keys and values too."""
    if metadata.architecture in _WITH_ATTENTION:
        return True
    known = metadata.architecture in _ALL | _BY_HEADS | _BY_HEADS_AND_FEED_FORWARD | _BY_INTERVAL.keys()
    return not known and any(kv_heads)


def attends_behind_trunk(metadata: Metadata, recurrent: Sequence[bool]) -> bool:
    """Whether layers that predict further tokens, behind the trunk, have a place in its cache.

    llama.cpp leaves them out, but where a hybrid gives one to every layer that is not recurrent.
    """
    return any(recurrent) and metadata.architecture not in _BY_INTERVAL


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
    formula = _FORMULAS.get(metadata.architecture)
    if formula is None:
        by_key = zip(_SIZES, (_state_space, _receptance, _delta_attention, _short_convolution), strict=True)
        formula = next((each for key, each in by_key if metadata.number(key, 0)), _state_space)
    return max(1, formula(metadata, heads_count, key_length))


def _is_recurrent(metadata: Metadata) -> bool:
    return any(metadata.number(key, 0) for key in _SIZES)


def _unknown(metadata: Metadata, kv_heads: Sequence[int]) -> Sequence[bool]:
    """Layers of an architecture without a rule: those without KV heads, or all."""
    if metadata.elements("attention.recurrent_layers") or metadata.value("full_attention_interval"):
        return _by_interval(metadata, len(kv_heads), 1)
    without = [heads == 0 for heads in kv_heads]
    return without if any(without) else (True,) * len(kv_heads)


def _by_interval(metadata: Metadata, layers_count: int, default: int) -> Sequence[bool]:
    listed = metadata.flags("attention.recurrent_layers", layers_count)
    if listed is not None:
        return listed
    interval = metadata.number("full_attention_interval", default, least=1)
    return [(layer + 1) % interval != 0 for layer in range(layers_count)]


def _state_space(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """Mamba and gated delta nets: the convolution runs over the inner state, and over groups of B and C."""
    del heads_count, key_length
    inner, state = metadata.number("ssm.inner_size", 0), metadata.number("ssm.state_size", 0)
    groups = 0 if metadata.architecture in {"mamba", "jamba"} else metadata.number("ssm.group_count", 0)
    return _convolved(metadata, default=1) * (inner + 2 * groups * state) + state * inner


def _receptance(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """RWKV: the last tokens of both shifts, and a square of each head."""
    del heads_count, key_length
    width = metadata.number("embedding_length")
    return width * (metadata.number("token_shift_count", 2) + metadata.number("wkv.head_size", 0))


def _short_convolution(metadata: Metadata, heads_count: int, key_length: int) -> int:
    del heads_count, key_length
    return metadata.number("embedding_length") * max(0, metadata.number("shortconv.l_cache", 0) - 1)


def _delta_attention(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """Kimi's delta attention: convolutions of queries, keys and values, and a square of each head."""
    del key_length
    length = metadata.number("kda.head_dim", 0)
    return heads_count * length * (3 * _convolved(metadata, default=4) + length)


def _lightning(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """MiniMax' lightning attention: a square of each head."""
    del metadata
    return heads_count * key_length * key_length


def _compressed(metadata: Metadata, heads_count: int, key_length: int) -> int:
    """Less than there is: it says that the model cannot rewind."""
    del metadata, heads_count
    return key_length


def _convolved(metadata: Metadata, default: int) -> int:
    """Inputs that a convolution keeps: one fewer than it is wide."""
    return (metadata.number("ssm.conv_kernel", default) or default) - 1


_FORMULAS: dict[str, Callable[[Metadata, int, int], int]] = {
    "arwkv7": _receptance,
    "bailingmoe3": _delta_attention,
    "deepseek4": _compressed,
    "kimi-k3": _delta_attention,
    "kimi-linear": _delta_attention,
    "lfm2": _short_convolution,
    "lfm2moe": _short_convolution,
    "minimax-01": _lightning,
    "rwkv6": _receptance,
    "rwkv6qwen2": _receptance,
    "rwkv7": _receptance,
}
