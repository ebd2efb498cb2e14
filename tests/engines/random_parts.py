"""The pieces that models of several architectures have in common: sizes, keys, tensors by name and shape.

``random_architectures`` and ``random_recurrent`` put them together. Names and shapes are those that
llama.cpp expects; a shape has the length of a row first, as the format has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VOCABULARY = 2048

Tensors = dict[str, tuple[int, ...]]

# Tensors that the engine wants in F32 however the others are stored.
_PLAIN = ("ssm_a", "ssm_d", "lerp", ".bias", "ssm_conv1d", "ssm_norm", "shortconv.conv", "ffn_gate_inp")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a model is. ``kv_heads`` may be a list, one for each layer.

    ``latent`` is whether latent attention caches the latent vector, or what it unfolds to.
    ``head_length`` times ``heads`` must be ``embedding`` for the architectures that do not say so.
    """

    layers: int = 4
    embedding: int = 128
    heads: int = 4
    kv_heads: int | list[int] = 2
    head_length: int = 32
    value_length: int | None = None
    feed_forward: int = 128
    train_context: int = 8192
    window: int = 512
    latent: bool = True

    def kv_heads_of(self, layer: int) -> int:
        """KV heads of one layer."""
        return self.kv_heads[layer] if isinstance(self.kv_heads, list) else self.kv_heads

    @property
    def values(self) -> int:
        """Elements of one head's value vector."""
        return self.head_length if self.value_length is None else self.value_length


@dataclass(frozen=True, kw_only=True)
class Model:
    """Keys below the architecture's name, and tensors."""

    keys: dict[str, Any]
    tensors: Tensors


def is_plain(name: str) -> bool:
    """Whether a tensor is stored in F32 in any case."""
    return any(part in name for part in _PLAIN)


def base_keys(sizes: Sizes) -> dict[str, Any]:
    """What every model says."""
    return {
        "context_length": sizes.train_context,
        "embedding_length": sizes.embedding,
        "block_count": sizes.layers,
        "feed_forward_length": sizes.feed_forward,
        "attention.head_count": sizes.heads,
        "attention.head_count_kv": sizes.kv_heads,
        "attention.key_length": sizes.head_length,
        "attention.value_length": sizes.values,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": sizes.head_length,
        "rope.freq_base": 10_000.0,
    }


def expert_keys(sizes: Sizes) -> dict[str, Any]:
    """Four experts, of which two are asked."""
    return {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": sizes.feed_forward}


def ends(sizes: Sizes, *, output: bool = False) -> Tensors:
    """Embedding and last norm, with an output matrix of its own or without."""
    found: Tensors = {
        "token_embd.weight": (sizes.embedding, VOCABULARY),
        "output_norm.weight": (sizes.embedding,),
    }
    return found | {"output.weight": (sizes.embedding, VOCABULARY)} if output else found


def attention(sizes: Sizes, layer: int) -> Tensors:
    """Projections of queries, keys, values and output."""
    kv_heads = sizes.kv_heads_of(layer)
    return {
        f"blk.{layer}.attn_q.weight": (sizes.embedding, sizes.heads * sizes.head_length),
        f"blk.{layer}.attn_k.weight": (sizes.embedding, kv_heads * sizes.head_length),
        f"blk.{layer}.attn_v.weight": (sizes.embedding, kv_heads * sizes.values),
        f"blk.{layer}.attn_output.weight": (sizes.heads * sizes.values, sizes.embedding),
    }


def feed_forward(sizes: Sizes, layer: int) -> Tensors:
    """A gated feed-forward part."""
    return {
        f"blk.{layer}.ffn_gate.weight": (sizes.embedding, sizes.feed_forward),
        f"blk.{layer}.ffn_up.weight": (sizes.embedding, sizes.feed_forward),
        f"blk.{layer}.ffn_down.weight": (sizes.feed_forward, sizes.embedding),
    }


def experts(sizes: Sizes, layer: int) -> Tensors:
    """The four experts and their router."""
    return {
        f"blk.{layer}.ffn_gate_inp.weight": (sizes.embedding, 4),
        f"blk.{layer}.ffn_gate_exps.weight": (sizes.embedding, sizes.feed_forward, 4),
        f"blk.{layer}.ffn_up_exps.weight": (sizes.embedding, sizes.feed_forward, 4),
        f"blk.{layer}.ffn_down_exps.weight": (sizes.feed_forward, sizes.embedding, 4),
    }


def norms(sizes: Sizes, layer: int, *names: str, length: int | None = None) -> Tensors:
    """Vectors of one layer, as long as the embedding."""
    return {f"blk.{layer}.{name}.weight": (length or sizes.embedding,) for name in names}
