"""Hypothesis strategies for the values that policies decide over."""

from __future__ import annotations

from hypothesis import strategies as st

from autotuned.core.model import ModelFacts
from autotuned.core.plan import KvCacheType, LoadShape, Need
from autotuned.policy.kv import padded_context
from autotuned.policy.plan import ShapeDefaults

cache_types = st.sampled_from(KvCacheType)
head_lengths = st.sampled_from([16, 32, 64, 80, 96, 128, 256])
known_train_contexts = st.one_of(
    st.sampled_from([512, 1000, 2048, 4096, 8192, 32_768, 131_072, 1_010_000]), st.integers(256, 1 << 21)
)
any_train_contexts = st.one_of(st.just(0), known_train_contexts)
requested_contexts = st.one_of(st.none(), st.integers(1, 1 << 18))


@st.composite
def kv_heads(draw: st.DrawFn) -> tuple[int, ...]:
    """KV heads of each layer: the same in all of them, or not."""
    layers = draw(st.integers(1, 130))
    if draw(st.booleans()):
        return (draw(st.integers(1, 64)),) * layers
    return tuple(draw(st.lists(st.integers(0, 16), min_size=layers, max_size=layers)))


@st.composite
def model_facts(draw: st.DrawFn, train_contexts: st.SearchStrategy[int] = any_train_contexts) -> ModelFacts:
    """Dense, grouped-query and other models; 0 is a train context that the file does not tell."""
    heads = draw(kv_heads())
    return ModelFacts(
        architecture="llama",
        name="drawn",
        quantization="Q8_0",
        parameters_count=draw(st.integers(0, 10**12)),
        weights_bytes=draw(st.integers(1, 1 << 42)),
        layers_count=len(heads),
        embedding_length=draw(st.sampled_from([192, 2048, 4096, 8192])),
        kv_heads_per_layer=heads,
        key_length=draw(head_lengths),
        value_length=draw(head_lengths),
        train_context_tokens=draw(train_contexts),
        kv_is_dense=draw(st.booleans()),
        chat_template="",
    )


@st.composite
def shape_defaults(draw: st.DrawFn) -> ShapeDefaults:
    """What a configuration may ask for, combinations that no engine accepts included."""
    batch_tokens = draw(st.integers(32, 16_384))
    return ShapeDefaults(
        slots_count=draw(st.integers(1, 16)),
        batch_tokens=batch_tokens,
        micro_batch_tokens=draw(st.integers(32, 16_384)),
        flash_attention=draw(st.booleans()),
        key_cache_type=draw(cache_types),
        value_cache_type=draw(cache_types),
    )


@st.composite
def load_shapes(draw: st.DrawFn) -> LoadShape:
    """A shape in which a model may be loaded, of whatever model."""
    context_tokens = padded_context(draw(st.integers(1, 1 << 18)))
    batch_tokens = min(draw(st.integers(32, 4096)), context_tokens)
    flash_attention = draw(st.booleans())
    return LoadShape(
        context_tokens=context_tokens,
        slots_count=draw(st.integers(1, 16)),
        key_cache_type=draw(cache_types),
        value_cache_type=draw(cache_types) if flash_attention else KvCacheType.F16,
        batch_tokens=batch_tokens,
        micro_batch_tokens=min(draw(st.integers(32, 4096)), batch_tokens),
        flash_attention=flash_attention,
        gpu_layers_count=draw(st.integers(0, 131)),
    )


@st.composite
def needs(draw: st.DrawFn, contexts: st.SearchStrategy[int | None] = requested_contexts) -> Need:
    """Prompts from none to far beyond most models, counted or estimated."""
    return Need(
        prompt_tokens=draw(st.one_of(st.integers(0, 10_000), st.integers(0, 1 << 22))),
        prompt_is_exact=draw(st.booleans()),
        reply_tokens=draw(st.integers(1, 4096)),
        context_tokens=draw(contexts),
    )
