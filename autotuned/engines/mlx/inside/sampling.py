"""From the fields of a request to functions over logits, with what mlx_lm has for each.

``generation`` makes one ``Sampler`` for each request. Invariant: every field that a request sets has its
effect, or is refused here.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import mlx.core as mx
from mlx_lm.sample_utils import make_logits_processors, make_sampler

from autotuned.engines.mlx.inside.problems import invalid
from autotuned.engines.mlx.protocol import SamplingData

# How far penalties look back, prompt included.
PENALTY_TOKENS = 64
SEEDS_COUNT = 1 << 64


class Sampler:
    """Draws the tokens of one request. Making it sets the seed of the whole process."""

    def __init__(self, sampling: SamplingData, vocabulary_size: int) -> None:
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed % SEEDS_COUNT
        mx.random.seed(seed)
        bias = dict(sampling.logit_bias)
        if any(not 0 <= token < vocabulary_size for token in bias):
            raise invalid("sampling.logit_bias", f"a token is not below {vocabulary_size}; leave it out.")
        repeat = sampling.repeat_penalty
        self._processors = make_logits_processors(
            logit_bias=bias or None,
            repetition_penalty=None if repeat == 1.0 else repeat,
            repetition_context_size=PENALTY_TOKENS,
            presence_penalty=sampling.presence_penalty,
            presence_context_size=PENALTY_TOKENS,
            frequency_penalty=sampling.frequency_penalty,
            frequency_context_size=PENALTY_TOKENS,
        )
        top_k = sampling.top_k or 0
        if sampling.top_p == 0.0:  # as the smallest share: the likeliest token alone
            top_k = 1
        self._draw = make_sampler(
            temp=sampling.temperature or 0.0,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            min_p=sampling.min_p or 0.0,
            top_k=top_k if 0 < top_k < vocabulary_size else 0,
        )

    def draw(self, logits: mx.array, recent: mx.array) -> mx.array:
        """A token for logits of shape (1, vocabulary), after the ``recent`` ones; shape (1,)."""
        if self._processors:
            logits = mx.array(logits)  # processors write into what they get
            for process in self._processors:
                logits = process(recent, logits)
        return self._draw(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


def recent_tokens(tokens: Sequence[int]) -> mx.array:
    """What penalties look at."""
    return mx.array(tokens[-PENALTY_TOKENS:], dtype=mx.uint32)
