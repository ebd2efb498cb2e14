"""What LM Studio lets one decide of a load, and what shape an instance really has.

``engine`` declares it, ``instances`` loads with it. Invariant: what LM Studio does not tell is named in
``assumed``.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.engine import Capabilities, Knobs, KnobScope
from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.engines.lmstudio.listing import Api, ListedInstance, ListedModel

# What is computed at once, of the batch that is told.
DEFAULT_MICRO_BATCH_TOKENS = 512

# The options that the documentation of LM Studio's chat route lists.
SAMPLING = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
    }
)

# The first API has no way to load: the first request does it, with the server's own context.
_KNOBS = {
    Api.V1: Knobs(
        context_tokens=KnobScope.LOAD, flash_attention=KnobScope.LOAD, keep_alive=KnobScope.REQUEST
    ),
    Api.V0: Knobs(keep_alive=KnobScope.LOAD),
}

_NEVER_TOLD = (
    "key_cache_type",
    "value_cache_type",
    "micro_batch_tokens",
    "gpu_layers_count",
    "host_prompt_cache_bytes",
    "memory_mapped",
)


def capabilities(api: Api, *, is_local: bool, slots_count: int) -> Capabilities:
    """What a server with this API does through its routes in OpenAI's dialect."""
    return Capabilities(
        tools=True,
        json_schema=True,
        # The route ignored an effort for a year; that newer builds read one is not documented.
        reasoning=False,
        logprobs=False,
        # Those of its models that see; the others refuse them.
        images=True,
        raw_prompt=True,
        embeddings=False,
        exact_token_counts=False,
        kv_prefixes=False,
        sampling=SAMPLING,
        counts_before_prefill=False,
        counts_cached=False,
        prefills=True,
        continues_replies=False,
        is_local=is_local,
        slots_count=slots_count,
        knobs=_KNOBS[api],
    )


def wanted_flash_attention(model: ListedModel, shape: LoadShape) -> bool | None:
    """What to load with; None where it means nothing: only the llama.cpp in LM Studio reads it."""
    return shape.flash_attention if model.is_gguf else None


def applied_shape(wanted: LoadShape, instance: ListedInstance) -> LoadShape:
    """The shape of an instance: what is told, and beside it what was wanted or is usual."""
    slots_count = instance.slots_count or 1
    batch_tokens = instance.batch_tokens or wanted.batch_tokens
    untold = {
        "context_tokens": not instance.context_tokens,
        "slots_count": not instance.slots_count,
        # Slots share the context unless somebody unticks that in the app.
        "kv_unified": slots_count > 1,
        "batch_tokens": not instance.batch_tokens,
        "flash_attention": instance.flash_attention is None,
    }
    return replace(
        wanted,
        context_tokens=instance.context_tokens or wanted.context_tokens,
        slots_count=slots_count,
        kv_unified=slots_count > 1,
        key_cache_type=KvCacheType.F16,
        value_cache_type=KvCacheType.F16,
        batch_tokens=batch_tokens,
        micro_batch_tokens=min(batch_tokens, DEFAULT_MICRO_BATCH_TOKENS),
        flash_attention=wanted.flash_attention
        if instance.flash_attention is None
        else instance.flash_attention,
        host_prompt_cache_bytes=0,
        assumed=(*(name for name, is_untold in untold.items() if is_untold), *_NEVER_TOLD),
    )
