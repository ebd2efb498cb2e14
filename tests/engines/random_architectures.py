"""What llama.cpp expects in a file of each architecture: its keys, and its tensors by name and shape.

``random_models`` writes them; ``random_recurrent`` has those with recurrent layers.
"""

from __future__ import annotations

from collections.abc import Callable

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
from tests.engines.random_recurrent import RECURRENT


def _plain(sizes: Sizes, *names: str, head_norms: bool = False, output: bool = False) -> Tensors:
    """Attention and feed-forward in each layer, with these norms."""
    tensors = ends(sizes, output=output)
    for layer in range(sizes.layers):
        tensors |= attention(sizes, layer) | feed_forward(sizes, layer) | norms(sizes, layer, *names)
        if head_norms:
            tensors |= norms(sizes, layer, "attn_q_norm", "attn_k_norm", length=sizes.head_length)
    return tensors


def _llama(sizes: Sizes) -> Model:
    return Model(keys=base_keys(sizes), tensors=_plain(sizes, "attn_norm", "ffn_norm"))


def _deci(sizes: Sizes) -> Model:
    """Layers without KV heads attend to nothing, and have a place in the cache."""
    tensors = ends(sizes)
    for layer in range(sizes.layers):
        tensors |= feed_forward(sizes, layer) | norms(sizes, layer, "attn_norm", "ffn_norm")
        if sizes.kv_heads_of(layer):
            tensors |= attention(sizes, layer)
        else:
            tensors[f"blk.{layer}.attn_output.weight"] = (sizes.embedding, sizes.embedding)
    return Model(keys=base_keys(sizes), tensors=tensors)


def _qwen3(sizes: Sizes) -> Model:
    return Model(keys=base_keys(sizes), tensors=_plain(sizes, "attn_norm", "ffn_norm", head_norms=True))


def _windowed_keys(sizes: Sizes) -> dict[str, object]:
    return base_keys(sizes) | {"attention.sliding_window": sizes.window}


def _gemma2(sizes: Sizes) -> Model:
    names = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
    return Model(keys=_windowed_keys(sizes), tensors=_plain(sizes, *names))


def _gemma3(sizes: Sizes) -> Model:
    names = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
    return Model(keys=_windowed_keys(sizes), tensors=_plain(sizes, *names, head_norms=True))


def _gemma4(sizes: Sizes) -> Model:
    """Windows in all layers but the last of each three, wider heads without, KV of two layers shared."""
    windows = [layer % 3 != 2 for layer in range(sizes.layers)]
    full = 2 * sizes.head_length
    tensors = ends(sizes) | {"rope_freqs.weight": (full // 2,)}
    for layer, has_window in enumerate(windows):
        length = sizes.head_length if has_window else full
        tensors |= feed_forward(sizes, layer)
        tensors |= norms(sizes, layer, "attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
        tensors |= norms(sizes, layer, "attn_q_norm", "attn_k_norm", length=length)
        tensors |= {
            f"blk.{layer}.attn_q.weight": (sizes.embedding, sizes.heads * length),
            f"blk.{layer}.attn_k.weight": (sizes.embedding, sizes.kv_heads_of(layer) * length),
            f"blk.{layer}.attn_v.weight": (sizes.embedding, sizes.kv_heads_of(layer) * length),
            f"blk.{layer}.attn_output.weight": (sizes.heads * length, sizes.embedding),
        }
    keys = _windowed_keys(sizes) | {
        "attention.sliding_window_pattern": windows,
        "attention.key_length": full,
        "attention.value_length": full,
        "attention.key_length_swa": sizes.head_length,
        "attention.value_length_swa": sizes.head_length,
        "attention.shared_kv_layers": 2,
        "embedding_length_per_layer_input": 0,
        "rope.dimension_count": full,
        "rope.dimension_count_swa": sizes.head_length,
    }
    return Model(keys=keys, tensors=tensors)


def _phi3(sizes: Sizes) -> Model:
    """Has the key of a window that the engine does not use."""
    tensors = _plain(sizes, "attn_norm", "ffn_norm")
    for layer in range(sizes.layers):
        del tensors[f"blk.{layer}.ffn_gate.weight"]
        tensors[f"blk.{layer}.ffn_up.weight"] = (sizes.embedding, 2 * sizes.feed_forward)
    return Model(keys=_windowed_keys(sizes), tensors=tensors)


def _cohere2(sizes: Sizes) -> Model:
    return Model(keys=_windowed_keys(sizes) | {"logit_scale": 0.25}, tensors=_plain(sizes, "attn_norm"))


def _olmo2(sizes: Sizes) -> Model:
    tensors = _plain(sizes, "post_attention_norm", "post_ffw_norm", output=True)
    for layer in range(sizes.layers):
        tensors |= norms(sizes, layer, "attn_q_norm")
        tensors |= norms(sizes, layer, "attn_k_norm", length=sizes.kv_heads_of(layer) * sizes.head_length)
    return Model(keys=_windowed_keys(sizes), tensors=tensors)


def _exaone4(sizes: Sizes) -> Model:
    tensors = _plain(sizes, "post_attention_norm", "post_ffw_norm", head_norms=True)
    return Model(keys=_windowed_keys(sizes), tensors=tensors)


def _gpt_oss(sizes: Sizes) -> Model:
    tensors = ends(sizes, output=True)
    for layer in range(sizes.layers):
        tensors |= attention(sizes, layer) | experts(sizes, layer)
        tensors |= norms(sizes, layer, "attn_norm", "post_attention_norm")
        tensors |= norms(sizes, layer, "attn_sinks", length=sizes.heads)
        tensors |= {
            f"blk.{layer}.attn_output.bias": (sizes.embedding,),
            f"blk.{layer}.ffn_gate_inp.bias": (4,),
            f"blk.{layer}.ffn_gate_exps.bias": (sizes.feed_forward, 4),
            f"blk.{layer}.ffn_up_exps.bias": (sizes.feed_forward, 4),
            f"blk.{layer}.ffn_down_exps.bias": (sizes.embedding, 4),
        }
    return Model(keys=_windowed_keys(sizes) | expert_keys(sizes), tensors=tensors)


def _deepseek2(sizes: Sizes) -> Model:
    """Latent attention: a latent of 64 and a rope part of 32 stand for the keys and values of all heads.

    Older files do not split the projection, and the engine then caches keys and values of each head.
    """
    latent, rope, query = 64, 32, 48
    tensors = ends(sizes)
    for layer in range(sizes.layers):
        tensors |= feed_forward(sizes, layer) | norms(sizes, layer, "attn_norm", "ffn_norm")
        tensors |= norms(sizes, layer, "attn_q_a_norm", length=query)
        tensors |= norms(sizes, layer, "attn_kv_a_norm", length=latent)
        tensors |= {
            f"blk.{layer}.attn_q_a.weight": (sizes.embedding, query),
            f"blk.{layer}.attn_q_b.weight": (query, sizes.heads * (sizes.head_length + rope)),
            f"blk.{layer}.attn_kv_a_mqa.weight": (sizes.embedding, latent + rope),
            f"blk.{layer}.attn_output.weight": (sizes.heads * sizes.values, sizes.embedding),
        }
        if sizes.latent:
            tensors[f"blk.{layer}.attn_k_b.weight"] = (sizes.head_length, latent, sizes.heads)
            tensors[f"blk.{layer}.attn_v_b.weight"] = (latent, sizes.values, sizes.heads)
        else:
            unfolded = sizes.heads * (sizes.head_length + sizes.values)
            tensors[f"blk.{layer}.attn_kv_b.weight"] = (latent, unfolded)
    cached = {
        "attention.head_count_kv": 1,
        "attention.key_length": latent + rope,
        "attention.value_length": latent,
        "attention.key_length_mla": sizes.head_length + rope,
        "attention.value_length_mla": sizes.values,
    }
    if not sizes.latent:
        cached = {
            "attention.head_count_kv": sizes.heads,
            "attention.key_length": sizes.head_length + rope,
            "attention.value_length": sizes.values,
        }
    keys = (
        base_keys(sizes)
        | cached
        | {
            "attention.kv_lora_rank": latent,
            "attention.q_lora_rank": query,
            "rope.dimension_count": rope,
            "leading_dense_block_count": sizes.layers,
            "expert_feed_forward_length": sizes.feed_forward,
            "expert_shared_count": 1,
        }
    )
    return Model(keys=keys, tensors=tensors)


ARCHITECTURES: dict[str, Callable[[Sizes], Model]] = {
    "cohere2": _cohere2,
    "deci": _deci,
    "deepseek2": _deepseek2,
    "exaone4": _exaone4,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "gpt-oss": _gpt_oss,
    "llama": _llama,
    "olmo2": _olmo2,
    "phi3": _phi3,
    "qwen3": _qwen3,
} | RECURRENT
