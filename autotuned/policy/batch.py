"""How many prompt tokens the engine computes at a time.

``plan`` chooses it at a load. A cancel waits for the batch at hand, so a batch should last about a
quarter of a second at most; larger ones are only a little faster.
"""

from __future__ import annotations

from autotuned.core.learning import Learned
from autotuned.core.memory import PressureTier
from autotuned.core.model import CacheLayout, ModelFacts
from autotuned.policy.situation import Situation

LONGEST_BATCH_SECONDS = 0.25
SMALLEST_BATCH_TOKENS = 32
LARGEST_BATCH_TOKENS = 2048
LARGEST_MICRO_BATCH_TOKENS = 512
FLOPS_PER_PARAMETER = 2
ASSUMED_FLOPS_PER_CORE = 50e9
# MLX is made for GPUs: on a CPU its prefill took 13 times as long as llama.cpp's.
MLX_CPU_SLOWNESS = 13


def batch_tokens(situation: Situation) -> int:
    """The configured batch; else the largest power of two, 32 to 2,048, that takes at most 250 ms.

    Critical pressure halves a chosen one: the buffers of the computation grow with it.
    """
    if situation.defaults.batch_tokens:
        return situation.defaults.batch_tokens
    chosen = _fitting(prefill_tokens_per_second(situation))
    if situation.memory.pressure >= PressureTier.CRITICAL:
        return max(chosen // 2, SMALLEST_BATCH_TOKENS)
    return chosen


def micro_batch_tokens(batch: int) -> int:
    """What one computation holds: the batch, at most 512 tokens."""
    return min(batch, LARGEST_MICRO_BATCH_TOKENS)


def prefill_tokens_per_second(situation: Situation) -> float:
    """The measured speed of prefill, or a cautious estimate before the first request."""
    learned = _learned_speed(situation.learned)
    if learned:
        return learned
    estimated = estimated_tokens_per_second(situation.facts, situation.defaults.cores_count)
    if situation.facts.cache_layout is CacheLayout.MLX and not situation.defaults.gpu:
        return estimated / MLX_CPU_SLOWNESS
    return estimated


def estimated_tokens_per_second(facts: ModelFacts, cores_count: int) -> float:
    """Two floating-point operations a parameter and token, at 50 GFLOPS a core.

    A processor's core has reached 30 to 100 with quantised weights; the first prompt tells.
    Where the file does not tell its parameters, each byte of weights counts as one.
    """
    parameters = facts.parameters_count or facts.weights_bytes
    return max(cores_count, 1) * ASSUMED_FLOPS_PER_CORE / (FLOPS_PER_PARAMETER * max(parameters, 1))


def _learned_speed(learned: Learned) -> float:
    return max(learned.prefill_tokens_per_second, 0.0)


def _fitting(tokens_per_second: float) -> int:
    tokens = int(min(tokens_per_second * LONGEST_BATCH_SECONDS, LARGEST_BATCH_TOKENS))
    return max(1 << max(tokens.bit_length() - 1, 0), SMALLEST_BATCH_TOKENS)
