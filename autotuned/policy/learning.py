"""What one more load or request teaches of a model, as pure functions over ``Learned``.

``services.learning`` keeps the results. Invariant: what is learned stays bounded, whatever comes.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.learning import Learned, MeasuredLoad
from autotuned.policy.sizing import DEFAULT_TOKENS_PER_BYTE, learn_tokens_per_byte

# A prefill of fewer tokens is mostly the fixed cost of a step: it says little of the rate.
LEAST_TIMED_TOKENS = 64
# Of each new rate so much counts: one request beside a busy program shall not change the picture.
_RATE_WEIGHT = 0.25
# Micro-batches that a model was ever loaded with, times two kinds of attention, times two of mapping.
MOST_LOADS = 16


def with_load(learned: Learned, load: MeasuredLoad) -> Learned:
    """The latest load of each micro-batch, attention and mapping; the least recent one goes first."""
    others = tuple(known for known in learned.loads if _kind(known) != _kind(load))
    return replace(learned, loads=(*others, load)[-MOST_LOADS:])


def with_prompt(learned: Learned, prompt_bytes: int, prompt_tokens: int, messages_count: int) -> Learned:
    """Tokens per byte after the engine counted a prompt; see ``sizing.learn_tokens_per_byte``."""
    known = learned.tokens_per_byte or None
    seen = learn_tokens_per_byte(known, prompt_bytes, prompt_tokens, messages_count)
    if seen == (known or DEFAULT_TOKENS_PER_BYTE):
        return learned
    return replace(learned, tokens_per_byte=seen)


def with_prefill(learned: Learned, evaluated_tokens: int, seconds: float) -> Learned:
    """The prefill rate as a weighted mean in which older requests fade."""
    if evaluated_tokens < LEAST_TIMED_TOKENS or seconds <= 0:
        return learned
    seen = evaluated_tokens / seconds
    known = learned.prefill_tokens_per_second
    return replace(
        learned, prefill_tokens_per_second=known + (seen - known) * _RATE_WEIGHT if known else seen
    )


def with_usual_context(learned: Learned, tokens: int) -> Learned:
    """What sessions of the model usually come to."""
    return replace(learned, usual_context_tokens=tokens)


def tokens_per_byte(learned: Learned) -> float:
    """What is known, or the default of a model never seen."""
    return learned.tokens_per_byte or DEFAULT_TOKENS_PER_BYTE


def _kind(load: MeasuredLoad) -> tuple[int, bool, bool]:
    return load.shape.micro_batch_tokens, load.shape.flash_attention, load.shape.memory_mapped
