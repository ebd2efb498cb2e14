"""What a model will take in a shape, before it is loaded.

``draft`` and ``plan`` ask. Invariant: state bytes are exact; the rest is what a load of this model
measured, or an estimate.
"""

from __future__ import annotations

from autotuned.core.learning import Learned
from autotuned.core.memory import Footprint
from autotuned.core.model import ModelFacts
from autotuned.core.plan import LoadShape
from autotuned.policy.kv import state_bytes

PROCESS_BYTES = 64 << 20
F32_BYTES = 4


def estimate_footprint(facts: ModelFacts, shape: LoadShape, learned: Learned) -> Footprint:
    """Bytes of the shape; the computation holds scores and activations of one micro-batch."""
    measured = next((load.footprint for load in learned.loads), None)
    activations = facts.vocabulary_size + 8 * facts.embedding_length
    compute_bytes = shape.micro_batch_tokens * activations * F32_BYTES
    return Footprint(
        weights_bytes=facts.weights_bytes,
        repacked_weights_bytes=measured.repacked_weights_bytes if measured else 0,
        kv_cache_bytes=state_bytes(facts, shape),
        compute_bytes=compute_bytes,
        process_bytes=measured.process_bytes if measured else PROCESS_BYTES,
        host_prompt_cache_bytes=shape.host_prompt_cache_bytes,
    )
