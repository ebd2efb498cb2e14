"""What recurrent layers keep of a sequence in mlx_lm: the latest inputs of a convolution, and a state.

``layers`` asks it for the architectures that have such layers. Convolutions keep the type that the model
computes in, states are F32. Invariant: one entry for each layer of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from autotuned.core.model import LayerGroup
from autotuned.engines.mlx.configuration import FULL, Configuration

F32_BYTES = 4
_NOTHING = LayerGroup(layers_count=1)

Layers = Callable[[Configuration, int], list[LayerGroup]]


def _recurrent(byte_count: int) -> LayerGroup:
    return LayerGroup(layers_count=1, recurrent_bytes=byte_count)


def _gated_delta(configuration: Configuration, element_bytes: int) -> list[LayerGroup]:
    """Qwen3-Next and Qwen3.5: each fourth layer attends."""
    key_heads, value_heads = (
        configuration.number("linear_num_key_heads"),
        configuration.number("linear_num_value_heads"),
    )
    key, value = configuration.number("linear_key_head_dim"), configuration.number("linear_value_head_dim")
    inputs = 2 * key_heads * key + value_heads * value
    kept = max(configuration.number("linear_conv_kernel_dim") - 1, 0) * inputs * element_bytes
    linear = _recurrent(kept + value_heads * value * key * F32_BYTES)
    period = configuration.number("full_attention_interval", default=4) or 1
    attention = configuration.attention()
    return [linear if (place + 1) % period else attention for place in range(configuration.layers_count)]


def _lfm2(configuration: Configuration, element_bytes: int) -> list[LayerGroup]:
    """Short convolutions without a state of their own."""
    kept = max(configuration.number("conv_L_cache") - 1, 0) * configuration.number("hidden_size")
    convolution, attention = _recurrent(kept * element_bytes), configuration.attention()
    listed = configuration.value("full_attn_idxs")
    kinds = configuration.kinds
    attending = (
        set(listed)
        if isinstance(listed, list)
        else {place for place, kind in enumerate(kinds) if kind == FULL}
    )
    return [attention if place in attending else convolution for place in range(configuration.layers_count)]


def _mamba2_bytes(
    *, element_bytes: int, kernel: int, heads: int, head_length: int, groups: int, state: int
) -> int:
    inputs = heads * head_length + 2 * groups * state
    return max(kernel - 1, 0) * inputs * element_bytes + heads * head_length * state * F32_BYTES


def _falcon_h1(configuration: Configuration, element_bytes: int) -> list[LayerGroup]:
    """Each layer attends and is recurrent, too."""
    configuration = configuration.with_defaults(
        {
            "head_dim": 64,
            "mamba_d_conv": 4,
            "mamba_d_head": 64,
            "mamba_n_heads": 24,
            "mamba_n_groups": 1,
            "mamba_d_state": 128,
        }
    )
    kept = _mamba2_bytes(
        element_bytes=element_bytes,
        kernel=configuration.number("mamba_d_conv"),
        heads=configuration.number("mamba_n_heads"),
        head_length=configuration.number("mamba_d_head"),
        groups=configuration.number("mamba_n_groups"),
        state=configuration.number("mamba_d_state"),
    )
    return [replace(configuration.attention(), recurrent_bytes=kept)] * configuration.layers_count


def _mamba2(configuration: Configuration, element_bytes: int) -> list[LayerGroup]:
    kept = _mamba2_bytes(
        element_bytes=element_bytes,
        kernel=configuration.number("conv_kernel"),
        heads=configuration.number("num_heads"),
        head_length=configuration.number("head_dim"),
        groups=configuration.number("n_groups"),
        state=configuration.number("ssm_state_size", "state_size"),
    )
    return [_recurrent(kept)] * configuration.layers_count


def _granite_hybrid(configuration: Configuration, element_bytes: int) -> list[LayerGroup]:
    kept = _mamba2_bytes(
        element_bytes=element_bytes,
        kernel=configuration.number("mamba_d_conv"),
        heads=configuration.number("mamba_n_heads"),
        head_length=configuration.number("mamba_d_head"),
        groups=configuration.number("mamba_n_groups"),
        state=configuration.number("mamba_d_state"),
    )
    attention = configuration.attention()
    return [_recurrent(kept) if kind == "mamba" else attention for kind in configuration.kinds]


def _nemotron_h(configuration: Configuration, element_bytes: int) -> list[LayerGroup]:
    """M is recurrent, * attends, everything else keeps nothing."""
    kept = _mamba2_bytes(
        element_bytes=element_bytes,
        kernel=configuration.number("conv_kernel"),
        heads=configuration.number("mamba_num_heads"),
        head_length=configuration.number("mamba_head_dim"),
        groups=configuration.number("n_groups"),
        state=configuration.number("ssm_state_size"),
    )
    layers = {"M": _recurrent(kept), "*": configuration.attention()}
    pattern = configuration.value("hybrid_override_pattern", "")
    return [layers.get(kind, _NOTHING) for kind in pattern]


ARCHITECTURES: Mapping[str, Layers] = {
    **dict.fromkeys(("qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen3_5_text"), _gated_delta),
    **dict.fromkeys(("lfm2", "lfm2_moe"), _lfm2),
    "falcon_h1": _falcon_h1,
    "mamba2": _mamba2,
    "granitemoehybrid": _granite_hybrid,
    "nemotron_h": _nemotron_h,
}
