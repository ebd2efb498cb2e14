"""Architectures with recurrent layers, alone or beside attention: keys, and tensors by name and shape.

``random_architectures`` takes them up. In hybrids, layers with 0 KV heads are the recurrent ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.engines.random_parts import (
    Model,
    Sizes,
    Tensors,
    attention,
    base_keys,
    ends,
    expert_keys,
    experts,
    feed_forward,
    norms,
)

CONVOLUTION, STATE, GROUPS, RANK = 4, 32, 2, 4
RWKV_HEAD, RWKV_RANK = 32, 16


def _inner(sizes: Sizes) -> int:
    return 2 * sizes.embedding


def _state_space_keys(sizes: Sizes) -> dict[str, Any]:
    return {
        "ssm.conv_kernel": CONVOLUTION,
        "ssm.inner_size": _inner(sizes),
        "ssm.state_size": STATE,
        "ssm.time_step_rank": RANK,
    }


def _without_attention(sizes: Sizes) -> dict[str, Any]:
    kept = {"context_length", "embedding_length", "block_count", "attention.layer_norm_rms_epsilon"}
    return {key: value for key, value in base_keys(sizes).items() if key in kept}


def _mamba_layer(sizes: Sizes, layer: int) -> Tensors:
    inner = _inner(sizes)
    return {
        f"blk.{layer}.ssm_in.weight": (sizes.embedding, 2 * inner),
        f"blk.{layer}.ssm_conv1d.weight": (CONVOLUTION, inner),
        f"blk.{layer}.ssm_conv1d.bias": (inner,),
        f"blk.{layer}.ssm_x.weight": (inner, RANK + 2 * STATE),
        f"blk.{layer}.ssm_dt.weight": (RANK, inner),
        f"blk.{layer}.ssm_dt.bias": (inner,),
        f"blk.{layer}.ssm_a": (STATE, inner),
        f"blk.{layer}.ssm_d": (inner,),
        f"blk.{layer}.ssm_out.weight": (inner, sizes.embedding),
    }


def _mamba2_layer(sizes: Sizes, layer: int) -> Tensors:
    inner = _inner(sizes)
    convolved = inner + 2 * GROUPS * STATE
    return {
        f"blk.{layer}.ssm_in.weight": (sizes.embedding, inner + convolved + RANK),
        f"blk.{layer}.ssm_conv1d.weight": (CONVOLUTION, convolved),
        f"blk.{layer}.ssm_conv1d.bias": (convolved,),
        f"blk.{layer}.ssm_dt.bias": (RANK,),
        f"blk.{layer}.ssm_a": (1, RANK),
        f"blk.{layer}.ssm_d": (1, RANK),
        f"blk.{layer}.ssm_norm.weight": (inner // GROUPS, GROUPS),
        f"blk.{layer}.ssm_out.weight": (inner, sizes.embedding),
    }


def _mamba(sizes: Sizes) -> Model:
    tensors = ends(sizes)
    for layer in range(sizes.layers):
        tensors |= _mamba_layer(sizes, layer) | norms(sizes, layer, "attn_norm")
    return Model(keys=_without_attention(sizes) | _state_space_keys(sizes), tensors=tensors)


def _mamba2(sizes: Sizes) -> Model:
    tensors = ends(sizes)
    for layer in range(sizes.layers):
        tensors |= _mamba2_layer(sizes, layer) | norms(sizes, layer, "attn_norm")
    keys = _without_attention(sizes) | _state_space_keys(sizes) | {"ssm.group_count": GROUPS}
    return Model(keys=keys, tensors=tensors)


def _falcon_h1(sizes: Sizes) -> Model:
    """Every layer has both."""
    tensors = ends(sizes)
    for layer in range(sizes.layers):
        tensors |= _mamba2_layer(sizes, layer) | attention(sizes, layer) | feed_forward(sizes, layer)
        tensors |= norms(sizes, layer, "attn_norm") | {f"blk.{layer}.ffn_norm": (sizes.embedding,)}
    keys = base_keys(sizes) | _state_space_keys(sizes) | {"ssm.group_count": GROUPS}
    return Model(keys=keys, tensors=tensors)


def _hybrid_kv_heads(sizes: Sizes) -> list[int]:
    """Attention in every third layer, unless the sizes say where."""
    if isinstance(sizes.kv_heads, list):
        return sizes.kv_heads
    return [sizes.kv_heads if layer % 3 == 2 else 0 for layer in range(sizes.layers)]


def _hybrid(sizes: Sizes, recurrent_layer: Callable[[Sizes, int], Tensors]) -> Tensors:
    tensors = ends(sizes)
    for layer, heads in enumerate(_hybrid_kv_heads(sizes)):
        tensors |= feed_forward(sizes, layer) | norms(sizes, layer, "attn_norm", "ffn_norm")
        tensors |= attention(sizes, layer) if heads else recurrent_layer(sizes, layer)
    return tensors


def _granite_hybrid(sizes: Sizes) -> Model:
    keys = base_keys(sizes) | _state_space_keys(sizes)
    keys |= {"ssm.group_count": GROUPS, "attention.head_count_kv": _hybrid_kv_heads(sizes)}
    return Model(keys=keys, tensors=_hybrid(sizes, _mamba2_layer))


def _jamba_layer(sizes: Sizes, layer: int) -> Tensors:
    found = _mamba_layer(sizes, layer) | norms(sizes, layer, "ssm_dt_norm", length=RANK)
    return found | norms(sizes, layer, "ssm_b_norm", "ssm_c_norm", length=STATE)


def _jamba(sizes: Sizes) -> Model:
    keys = base_keys(sizes) | _state_space_keys(sizes)
    keys |= {"attention.head_count_kv": _hybrid_kv_heads(sizes)}
    return Model(keys=keys, tensors=_hybrid(sizes, _jamba_layer))


def _lfm2_layer(sizes: Sizes, layer: int) -> Tensors:
    return {
        f"blk.{layer}.shortconv.conv.weight": (CONVOLUTION, sizes.embedding),
        f"blk.{layer}.shortconv.in_proj.weight": (sizes.embedding, 3 * sizes.embedding),
        f"blk.{layer}.shortconv.out_proj.weight": (sizes.embedding, sizes.embedding),
    }


def _lfm2(sizes: Sizes) -> Model:
    tensors = _hybrid(sizes, _lfm2_layer)
    tensors["token_embd_norm.weight"] = tensors.pop("output_norm.weight")
    for layer, heads in enumerate(_hybrid_kv_heads(sizes)):
        if heads:
            tensors |= norms(sizes, layer, "attn_q_norm", "attn_k_norm", length=sizes.head_length)
    keys = base_keys(sizes) | {
        "attention.head_count_kv": _hybrid_kv_heads(sizes),
        "shortconv.l_cache": CONVOLUTION,
    }
    return Model(keys=keys, tensors=tensors)


def _nemotron_h(sizes: Sizes) -> Model:
    """One thing a layer, in turns: a state, a feed-forward part, attention."""
    tensors = ends(sizes)
    heads, widths = [], []
    for layer in range(sizes.layers):
        kind = layer % 3
        heads.append(sizes.kv_heads_of(layer) if kind == 2 else 0)
        widths.append(sizes.feed_forward if kind == 1 else 0)
        tensors |= norms(sizes, layer, "attn_norm")
        if kind == 0:
            tensors |= _mamba2_layer(sizes, layer)
        elif kind == 1:
            tensors |= feed_forward(sizes, layer)
            del tensors[f"blk.{layer}.ffn_gate.weight"]
        else:
            tensors |= attention(sizes, layer)
    keys = base_keys(sizes) | _state_space_keys(sizes)
    keys |= {
        "ssm.group_count": GROUPS,
        "attention.head_count_kv": heads,
        "feed_forward_length": widths,
    }
    return Model(keys=keys, tensors=tensors)


def _delta_net_layer(sizes: Sizes, layer: int) -> Tensors:
    keys, values = STATE * GROUPS, STATE * RANK
    return {
        f"blk.{layer}.attn_qkv.weight": (sizes.embedding, 2 * keys + values),
        f"blk.{layer}.attn_gate.weight": (sizes.embedding, values),
        f"blk.{layer}.ssm_conv1d.weight": (CONVOLUTION, 2 * keys + values),
        f"blk.{layer}.ssm_dt.bias": (RANK,),
        f"blk.{layer}.ssm_a": (RANK,),
        f"blk.{layer}.ssm_ba.weight": (sizes.embedding, 2 * RANK),
        f"blk.{layer}.ssm_norm.weight": (STATE,),
        f"blk.{layer}.ssm_out.weight": (values, sizes.embedding),
    }


def _qwen3next(sizes: Sizes) -> Model:
    """Attention in every fourth layer, gated; experts in all."""
    tensors = ends(sizes)
    for layer in range(sizes.layers):
        tensors |= experts(sizes, layer) | norms(sizes, layer, "attn_norm", "post_attention_norm")
        tensors |= {
            f"blk.{layer}.ffn_gate_inp_shexp.weight": (sizes.embedding,),
            f"blk.{layer}.ffn_gate_shexp.weight": (sizes.embedding, sizes.feed_forward),
            f"blk.{layer}.ffn_up_shexp.weight": (sizes.embedding, sizes.feed_forward),
            f"blk.{layer}.ffn_down_shexp.weight": (sizes.feed_forward, sizes.embedding),
        }
        if (layer + 1) % 4:
            tensors |= _delta_net_layer(sizes, layer)
            continue
        tensors |= attention(sizes, layer)
        tensors |= norms(sizes, layer, "attn_q_norm", "attn_k_norm", length=sizes.head_length)
        tensors[f"blk.{layer}.attn_q.weight"] = (sizes.embedding, 2 * sizes.heads * sizes.head_length)
    keys = base_keys(sizes) | expert_keys(sizes) | _state_space_keys(sizes)
    keys |= {
        "ssm.inner_size": STATE * RANK,
        "ssm.group_count": GROUPS,
        "expert_shared_feed_forward_length": sizes.feed_forward,
    }
    return Model(keys=keys, tensors=tensors)


def _rwkv7_layer(sizes: Sizes, layer: int) -> Tensors:
    width, rank = sizes.embedding, RWKV_RANK
    square = ("time_mix_key", "time_mix_value", "time_mix_receptance", "time_mix_output")
    vectors = ("time_mix_w0", "time_mix_a0", "time_mix_v0", "time_mix_k_k", "time_mix_k_a", "time_mix_r_k")
    found = norms(sizes, layer, "attn_norm", "attn_norm_2", "time_mix_ln", *vectors)
    for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
        found[f"blk.{layer}.{name}.bias"] = (width,)
    for name in ("w", "a", "v", "g"):
        found[f"blk.{layer}.time_mix_{name}1.weight"] = (width, rank)
        found[f"blk.{layer}.time_mix_{name}2.weight"] = (rank, width)
    for name in square:
        found[f"blk.{layer}.{name}.weight"] = (width, width)
    return found | {
        f"blk.{layer}.time_mix_lerp_fused.weight": (width, 1, 1, 6),
        f"blk.{layer}.channel_mix_lerp_k.weight": (width, 1, 1),
        f"blk.{layer}.channel_mix_key.weight": (width, sizes.feed_forward),
        f"blk.{layer}.channel_mix_value.weight": (sizes.feed_forward, width),
    }


def _rwkv7(sizes: Sizes) -> Model:
    tensors = ends(sizes, output=True)
    for name in ("token_embd_norm.weight", "token_embd_norm.bias", "output_norm.bias"):
        tensors[name] = (sizes.embedding,)
    for layer in range(sizes.layers):
        tensors |= _rwkv7_layer(sizes, layer)
    keys = _without_attention(sizes) | {
        "feed_forward_length": sizes.feed_forward,
        "attention.head_count": 0,
        "attention.layer_norm_epsilon": 1e-5,
        "wkv.head_size": RWKV_HEAD,
        "attention.decay_lora_rank": RWKV_RANK,
        "attention.iclr_lora_rank": RWKV_RANK,
        "attention.value_residual_mix_lora_rank": RWKV_RANK,
        "attention.gate_lora_rank": RWKV_RANK,
    }
    return Model(keys=keys, tensors=tensors)


RECURRENT: dict[str, Callable[[Sizes], Model]] = {
    "falcon-h1": _falcon_h1,
    "granitehybrid": _granite_hybrid,
    "jamba": _jamba,
    "lfm2": _lfm2,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "nemotron_h": _nemotron_h,
    "qwen3next": _qwen3next,
    "rwkv7": _rwkv7,
}
