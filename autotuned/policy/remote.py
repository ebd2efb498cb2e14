"""Plans for a model that runs elsewhere: nothing of this machine is taken, and nothing is set.

``services.planner`` asks for models of engines that are not local. Invariant: what is refused is what the
server could not hold by its own word; where it does not tell, it decides itself.
"""

from __future__ import annotations

from autotuned.core.errors import ContextTooLong, FieldInvalid
from autotuned.core.memory import Footprint, PressureTier
from autotuned.core.model import ModelFacts
from autotuned.core.plan import KvCacheType, LoadShape, Need, Plan, PlanAction, Reason
from autotuned.policy.reasons import context_above

NOTHING = Footprint(
    weights_bytes=0, repacked_weights_bytes=0, kv_cache_bytes=0, compute_bytes=0, process_bytes=0
)
UNKNOWN_CONTEXT_TOKENS = 1 << 30
"""Stands for the context of a server that does not tell it: nothing is refused for its length."""


def remote_shape(facts: ModelFacts, slots_count: int) -> LoadShape:
    """The shape of a model whose server decides all of it, as far as it tells its context."""
    return foreign_shape(facts.train_context_tokens, slots_count)


def foreign_shape(context_tokens: int, slots_count: int = 1) -> LoadShape:
    """A shape of which the context alone is known, or nothing where that is 0."""
    return LoadShape(
        context_tokens=context_tokens or UNKNOWN_CONTEXT_TOKENS,
        slots_count=slots_count,
        kv_unified=False,
        key_cache_type=KvCacheType.F16,
        value_cache_type=KvCacheType.F16,
        batch_tokens=0,
        micro_batch_tokens=0,
        flash_attention=False,
        gpu_layers_count=0,
        host_prompt_cache_bytes=0,
        memory_mapped=False,
        assumed=(
            *(() if context_tokens else ("context_tokens",)),
            "slots_count",
            "key_cache_type",
            "value_cache_type",
            "batch_tokens",
            "micro_batch_tokens",
            "flash_attention",
            "gpu_layers_count",
            "host_prompt_cache_bytes",
            "memory_mapped",
        ),
    )


def plan_remote(
    need: Need, facts: ModelFacts, loaded: LoadShape | None, *, slots_count: int, where: str
) -> Plan:
    """Uses the server as it is. Raises ``ContextTooLong`` and ``FieldInvalid``."""
    shape = loaded or remote_shape(facts, slots_count)
    limit = shape.context_tokens
    if need.context_tokens is not None and need.context_tokens > limit:
        raise FieldInvalid("context_tokens", context_above(need.context_tokens, limit))
    if need.prompt_is_exact and need.prompt_tokens >= limit:
        raise ContextTooLong(prompt_tokens=need.prompt_tokens, context_tokens=limit)
    return Plan(
        action=PlanAction.REUSE if loaded else PlanAction.LOAD,
        shape=shape,
        footprint=NOTHING,
        reasons=(
            Reason("elsewhere", f"It runs at {where}, which decides its shape: no memory is taken here."),
        ),
        pressure=PressureTier.NORMAL,
    )
