"""Log probabilities of drawn tokens and of those that could have been drawn, as OpenAI's dialect has them.

``answer`` asks for each token where the request wants them. They are the model's own: before penalties,
biases, temperature and grammar.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from autotuned.engines.mlx.inside.vocabulary import Vocabulary


def logprobs_of(vocabulary: Vocabulary, logits: mx.array, token: int, top_count: int) -> dict[str, Any]:
    """Those of one place, from logits of shape (1, vocabulary); the likeliest first."""
    table = (logits - mx.logsumexp(logits, axis=-1, keepdims=True))[0]
    found = _entry(vocabulary, token, table[token].item())
    count = min(top_count, table.shape[-1])
    best: list[int] = []
    if count:
        best = mx.argsort(-table)[:count].tolist()
    found["top_logprobs"] = [_entry(vocabulary, each, table[each].item()) for each in best]
    return found


def _entry(vocabulary: Vocabulary, token: int, logprob: Any) -> dict[str, Any]:
    data = vocabulary.bytes_of(token)
    return {"token": data.decode(errors="replace"), "bytes": list(data), "logprob": min(float(logprob), 0.0)}
