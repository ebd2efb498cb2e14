"""What llama.cpp expects in a file of each architecture: its keys, and its tensors by name and shape.

``random_models`` writes them. Shapes have the length of a row first, as the format has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

VOCABULARY = 2048

Tensors = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a model is. ``kv_heads`` may be a list, one for each layer."""

    layers: int = 4
    embedding: int = 64
    heads: int = 4
    kv_heads: int | list[int] = 2
    head_length: int = 32
    value_length: int | None = None
    feed_forward: int = 128
    train_context: int = 8192

    def kv_heads_of(self, layer: int) -> int:
        """KV heads of one layer."""
        return self.kv_heads[layer] if isinstance(self.kv_heads, list) else self.kv_heads

    @property
    def values(self) -> int:
        """Elements of one head's value vector."""
        return self.head_length if self.value_length is None else self.value_length


@dataclass(frozen=True, kw_only=True)
class Model:
    """Keys below the architecture's name, and tensors. ``plain`` ones are stored as F32."""

    keys: dict[str, Any]
    tensors: Tensors
    plain: frozenset[str] = field(default_factory=frozenset)


def _base_keys(sizes: Sizes) -> dict[str, Any]:
    return {
        "context_length": sizes.train_context,
        "embedding_length": sizes.embedding,
        "block_count": sizes.layers,
        "feed_forward_length": sizes.feed_forward,
        "attention.head_count": sizes.heads,
        "attention.head_count_kv": sizes.kv_heads,
        "attention.key_length": sizes.head_length,
        "attention.value_length": sizes.values,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": sizes.head_length,
        "rope.freq_base": 10_000.0,
    }


def _ends(sizes: Sizes) -> Tensors:
    return {"token_embd.weight": (sizes.embedding, VOCABULARY), "output_norm.weight": (sizes.embedding,)}


def _attention(sizes: Sizes, layer: int) -> Tensors:
    kv_heads = sizes.kv_heads_of(layer)
    return {
        f"blk.{layer}.attn_q.weight": (sizes.embedding, sizes.heads * sizes.head_length),
        f"blk.{layer}.attn_k.weight": (sizes.embedding, kv_heads * sizes.head_length),
        f"blk.{layer}.attn_v.weight": (sizes.embedding, kv_heads * sizes.values),
        f"blk.{layer}.attn_output.weight": (sizes.heads * sizes.values, sizes.embedding),
    }


def _feed_forward(sizes: Sizes, layer: int) -> Tensors:
    return {
        f"blk.{layer}.ffn_gate.weight": (sizes.embedding, sizes.feed_forward),
        f"blk.{layer}.ffn_up.weight": (sizes.embedding, sizes.feed_forward),
        f"blk.{layer}.ffn_down.weight": (sizes.feed_forward, sizes.embedding),
    }


def _vectors(sizes: Sizes, layer: int, *names: str, length: int | None = None) -> Tensors:
    return {f"blk.{layer}.{name}": (length or sizes.embedding,) for name in names}


def _llama(sizes: Sizes) -> Model:
    tensors = _ends(sizes)
    for layer in range(sizes.layers):
        tensors |= _attention(sizes, layer) | _feed_forward(sizes, layer)
        tensors |= _vectors(sizes, layer, "attn_norm.weight", "ffn_norm.weight")
    return Model(keys=_base_keys(sizes), tensors=tensors)


ARCHITECTURES: dict[str, Callable[[Sizes], Model]] = {
    "llama": _llama,
}
