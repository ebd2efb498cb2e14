"""Plain values that tests start from: the pocket model, a question to it, the usual defaults."""

from __future__ import annotations

from autotuned.core.model import ModelFacts
from autotuned.core.plan import KvCacheType, Need
from autotuned.policy.plan import ShapeDefaults

POCKET = ModelFacts(
    architecture="llama",
    name="autotune-pocket",
    quantization="Q8_0",
    parameters_count=2_115_264,
    weights_bytes=2_252_544,
    layers_count=4,
    embedding_length=192,
    kv_heads_per_layer=(2, 2, 2, 2),
    key_length=32,
    value_length=32,
    train_context_tokens=8192,
    kv_is_dense=True,
    chat_template="",
)
DEFAULTS = ShapeDefaults(
    slots_count=1,
    batch_tokens=512,
    micro_batch_tokens=256,
    flash_attention=True,
    key_cache_type=KvCacheType.F16,
    value_cache_type=KvCacheType.F16,
)


def counted(prompt_tokens: int, reply_tokens: int = 1024, context_tokens: int | None = None) -> Need:
    """The need of a prompt that a tokenizer has counted."""
    return Need(
        prompt_tokens=prompt_tokens,
        prompt_is_exact=True,
        reply_tokens=reply_tokens,
        context_tokens=context_tokens,
    )


def estimated(prompt_tokens: int, reply_tokens: int = 1024, context_tokens: int | None = None) -> Need:
    """The need of a prompt of which only the length is known; 0 is one of which nothing is."""
    return Need(
        prompt_tokens=prompt_tokens,
        prompt_is_exact=False,
        reply_tokens=reply_tokens,
        context_tokens=context_tokens,
    )
