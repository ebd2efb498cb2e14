"""What Ollama can do through this adapter. ``engine`` asks each time, because the version may change.

Invariant: what is declared is sent and honoured; the rest is refused by ``body``.
"""

from __future__ import annotations

from autotuned.core.engine import ALL_SAMPLING, Capabilities, Knobs, KnobScope
from autotuned.core.plan import KvCacheType
from autotuned.core.settings import OllamaSettings
from autotuned.engines.ollama.environment import MANAGED
from autotuned.engines.ollama.versions import Features

# Of a load the context alone is ours. What the batch, the layers on the GPU and the mapping are is best
# left to Ollama; the rest is its server's and cannot be set from outside.
KNOBS = Knobs(
    context_tokens=KnobScope.LOAD,
    slots_count=KnobScope.SERVER,
    cache_type=KnobScope.SERVER,
    flash_attention=KnobScope.SERVER,
    host_prompt_cache=KnobScope.SERVER,
    keep_alive=KnobScope.REQUEST,
)
# How somebody else started a server, it does not tell.
ATTACHED_KNOBS = Knobs(context_tokens=KnobScope.LOAD, keep_alive=KnobScope.REQUEST)


def capabilities_of(settings: OllamaSettings, features: Features, *, is_local: bool) -> Capabilities:
    """The capabilities of one version.

    Replies cannot go on: what a model's template makes of one that was begun is the template's own affair.
    """
    return Capabilities(
        tools=True,
        json_schema=True,
        reasoning=True,
        logprobs=features.logprobs,
        images=True,
        raw_prompt=True,
        embeddings=False,
        exact_token_counts=False,
        kv_prefixes=False,
        tool_choice=False,
        sampling=ALL_SAMPLING - {"logit_bias"},
        counts_before_prefill=False,
        counts_cached=features.cached_counts,
        prefills=True,
        continues_replies=False,
        is_local=is_local,
        pulls=True,
        slots_count=settings.slots if settings.mode == MANAGED else 1,
        server_cache_type=KvCacheType(settings.kv_cache) if settings.mode == MANAGED else KvCacheType.F16,
        knobs=KNOBS if settings.mode == MANAGED else ATTACHED_KNOBS,
    )
