"""What the caches of a model will take when the context is full, from those that hold a few tokens.

``runtime`` asks once, after the warm-up. ``policy.kv_mlx`` computes the same from the configuration alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from autotuned.engines.mlx.inside.states import leaves

# Caches grow by so many tokens.
STEP_TOKENS = 256


def full_bytes(caches: Iterable[Any], *, context_tokens: int, batch_tokens: int) -> int:
    """Bytes of these caches for a whole context. They hold some tokens already."""
    return sum(
        _full_bytes(part, context_tokens=context_tokens, batch_tokens=batch_tokens)
        for part in leaves(list(caches))
    )


def _full_bytes(part: Any, *, context_tokens: int, batch_tokens: int) -> int:
    if not hasattr(part, "keys"):  # recurrent: the same whatever the context
        return int(part.nbytes)
    cells = -(-context_tokens // STEP_TOKENS) * STEP_TOKENS
    most = getattr(part, "max_size", None) or getattr(part, "chunk_size", None)
    if most:  # a window, and the batch that pushes it on
        cells = min(cells, most - 1 + batch_tokens)
    return cells * (int(part.nbytes) // _cells(part.keys))


def _cells(keys: Any) -> int:
    """The tokens that there is room for."""
    array = keys[0] if isinstance(keys, tuple | list) else keys
    return int(array.shape[-2])
