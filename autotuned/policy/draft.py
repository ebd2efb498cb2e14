"""A load whose context and KV types are still open, while the ladder looks for ones that fit.

``plan`` drafts a load or a growth, ``fit`` and ``noswap`` try contexts with it.
Invariant: a growth changes nothing that a saved KV state depends on, and never computes in smaller
batches than before: the state of layers with a window has as many cells as the batch asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotuned.core.learning import Learned
from autotuned.core.memory import Footprint
from autotuned.core.model import ModelFacts
from autotuned.core.plan import LoadShape
from autotuned.policy.batch import batch_tokens, micro_batch_tokens
from autotuned.policy.cache_types import CacheTypes
from autotuned.policy.footprint import estimate_footprint, prefers_mapping
from autotuned.policy.situation import Situation


@dataclass(frozen=True, slots=True)
class Draft:
    """The model, and a shape of which all but context and KV types is decided."""

    facts: ModelFacts
    learned: Learned
    template: LoadShape

    def shape(self, context_tokens: int, types: CacheTypes) -> LoadShape:
        """The shape with this context, which no batch exceeds.

        Field by field: a plan makes half a dozen, and ``replace`` would be a tenth of its time.
        """
        template = self.template
        batch = min(template.batch_tokens, context_tokens)
        return LoadShape(
            context_tokens=context_tokens,
            slots_count=template.slots_count,
            kv_unified=template.kv_unified,
            key_cache_type=types.key,
            value_cache_type=types.value,
            batch_tokens=batch,
            micro_batch_tokens=min(template.micro_batch_tokens, batch),
            flash_attention=template.flash_attention,
            gpu_layers_count=template.gpu_layers_count,
            host_prompt_cache_bytes=template.host_prompt_cache_bytes,
            memory_mapped=template.memory_mapped,
            assumed=template.assumed,
        )

    def with_batch(self, batch: int) -> Draft:
        """The same with batches of so many tokens."""
        template = replace(self.template, batch_tokens=batch, micro_batch_tokens=micro_batch_tokens(batch))
        return replace(self, template=template)

    def footprint(self, shape: LoadShape) -> Footprint:
        """What this shape takes."""
        return estimate_footprint(self.facts, shape, self.learned)


def first_draft(situation: Situation, types: CacheTypes) -> Draft:
    """A model that is not loaded."""
    defaults, facts = situation.defaults, situation.facts
    batch = batch_tokens(situation)
    template = LoadShape(
        context_tokens=0,
        slots_count=defaults.slots_count,
        kv_unified=defaults.slots_count > 1,
        key_cache_type=types.key,
        value_cache_type=types.value,
        batch_tokens=batch,
        micro_batch_tokens=micro_batch_tokens(batch),
        flash_attention=defaults.flash_attention,
        gpu_layers_count=facts.layers_count + 1 if defaults.gpu else 0,
        host_prompt_cache_bytes=0,
        memory_mapped=defaults.memory_mapped and prefers_mapping(facts),
        assumed=defaults.assumed,
    )
    return Draft(facts, situation.learned, template)


def next_draft(situation: Situation, loaded: LoadShape) -> Draft:
    """A loaded model that is loaded again; a batch that has proved too short becomes longer."""
    batch = max(loaded.batch_tokens, batch_tokens(situation))
    template = replace(
        loaded,
        batch_tokens=batch,
        micro_batch_tokens=max(loaded.micro_batch_tokens, micro_batch_tokens(batch)),
        host_prompt_cache_bytes=0,
    )
    return Draft(situation.facts, situation.learned, template)
