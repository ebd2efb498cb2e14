"""What the planner needs to know of a model, from the registry instead of from a file.

``recommend`` and ``download_fit`` plan with it. Invariant: what the registry does not tell is not made up:
a model without layers has no facts.
"""

from __future__ import annotations

from autotuned.core.learning import Learned
from autotuned.core.memory import Footprint, MemoryView
from autotuned.core.model import CacheLayout, ModelFacts
from autotuned.core.registry import RegistryModel, RegistrySize
from autotuned.policy.batch import LARGEST_BATCH_TOKENS
from autotuned.policy.cache_types import smaller_types, whole_types
from autotuned.policy.draft import first_draft
from autotuned.policy.situation import ShapeDefaults, Situation

MLX = "mlx"


def facts_of(model: RegistryModel, size: RegistrySize) -> ModelFacts | None:
    """The facts of one of its downloads; None where the registry does not tell its layers."""
    if not model.layer_groups:
        return None
    return ModelFacts(
        digest="",
        architecture=model.architecture,
        name=model.name,
        quantization=size.quantization,
        parameters_count=model.parameters_count,
        weights_bytes=size.size_bytes,
        weights_bytes_by_type=(),  # whatever is repacked, the total is the same
        layers_count=model.layers_count,
        embedding_length=model.embedding_length,
        vocabulary_size=model.vocabulary_size,
        layer_groups=model.layer_groups,
        train_context_tokens=model.train_context_tokens,
        chat_template="",
        calls_tools=model.calls_tools,
        thinks=model.thinks,
        modalities=model.modalities,
        cache_layout=CacheLayout.MLX if size.of == MLX else CacheLayout.LLAMACPP,
    )


def footprint_at(
    facts: ModelFacts, context_tokens: int, defaults: ShapeDefaults, memory: MemoryView, *, on_gpu: bool
) -> tuple[Footprint, Footprint]:
    """What a first load with this context takes: with the largest cache, and with that of short memory.

    A GPU computes long batches, a processor those that the planner would choose.
    """
    situation = Situation(facts=facts, learned=Learned(), defaults=defaults, memory=memory)
    types = whole_types(situation)
    draft = first_draft(situation, types)
    if on_gpu:
        draft = draft.with_batch(LARGEST_BATCH_TOKENS)
    whole = draft.footprint(draft.shape(context_tokens, types))
    smaller = draft.footprint(draft.shape(context_tokens, smaller_types(types, facts, defaults)))
    return whole, smaller
