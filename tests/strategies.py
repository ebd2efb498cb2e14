"""Hypothesis strategies for the values that policies decide over."""

from __future__ import annotations

from hypothesis import strategies as st

from autotuned.core.chat import ProfileName
from autotuned.core.learning import Learned
from autotuned.core.memory import MemoryReading, MemoryView, PressureTier, Resident, SwapPolicy
from autotuned.core.model import LayerGroup, ModelFacts
from autotuned.core.plan import KvCacheType, LoadShape, Need
from autotuned.policy.kv import padded_context
from autotuned.policy.plan import ShapeDefaults, Situation

cache_types = st.sampled_from(KvCacheType)
pressures = st.sampled_from(PressureTier)
profiles = st.sampled_from(ProfileName)
head_lengths = st.sampled_from([16, 32, 64, 80, 96, 128, 256])
known_train_contexts = st.one_of(
    st.sampled_from([512, 1000, 2048, 4096, 8192, 32_768, 131_072, 1_010_000]), st.integers(256, 1 << 21)
)
any_train_contexts = st.one_of(st.just(0), known_train_contexts)
requested_contexts = st.one_of(st.none(), st.integers(1, 1 << 18))

BOUNDLESS = MemoryReading(total_bytes=1 << 60, available_bytes=1 << 59, swap_total_bytes=0, swap_free_bytes=0)
CALM = MemoryView(reading=BOUNDLESS, pressure=PressureTier.NORMAL)


@st.composite
def layer_groups(draw: st.DrawFn) -> LayerGroup:
    """Layers with full attention, a window, latent attention, recurrent state, or nothing of their own."""
    layers_count = draw(st.integers(1, 64))
    kind = draw(st.sampled_from(["full", "window", "latent", "recurrent", "shared"]))
    if kind == "recurrent":
        return LayerGroup(layers_count=layers_count, recurrent_elements=draw(st.integers(1, 1 << 22)))
    if kind == "shared":
        return LayerGroup(layers_count=layers_count)
    if kind == "latent":
        return LayerGroup(layers_count=layers_count, kv_heads=1, key_length=576)
    return LayerGroup(
        layers_count=layers_count,
        kv_heads=draw(st.integers(1, 16)),
        key_length=draw(head_lengths),
        value_length=draw(head_lengths),
        window_tokens=draw(st.sampled_from([512, 1024, 4096])) if kind == "window" else 0,
    )


@st.composite
def model_facts(draw: st.DrawFn, train_contexts: st.SearchStrategy[int] = any_train_contexts) -> ModelFacts:
    """Dense, hybrid and other models; 0 is a train context that the file does not tell."""
    groups = tuple(draw(st.lists(layer_groups(), min_size=1, max_size=3)))
    weights_bytes = draw(st.integers(1, 1 << 38))
    return ModelFacts(
        digest="drawn",
        architecture="llama",
        name="drawn",
        quantization="Q8_0",
        parameters_count=draw(st.one_of(st.just(0), st.integers(1, 10**12))),
        weights_bytes=weights_bytes,
        weights_bytes_by_type=(("Q8_0", weights_bytes),),
        layers_count=sum(group.layers_count for group in groups),
        embedding_length=draw(st.sampled_from([192, 2048, 4096, 8192])),
        vocabulary_size=draw(st.sampled_from([2048, 32_000, 262_144])),
        layer_groups=groups,
        train_context_tokens=draw(train_contexts),
        chat_template="",
    )


@st.composite
def shape_defaults(draw: st.DrawFn) -> ShapeDefaults:
    """What a configuration may ask for, combinations that no engine accepts included."""
    return ShapeDefaults(
        slots_count=draw(st.sampled_from([1, 1, 2, 4, 16])),
        batch_tokens=draw(st.one_of(st.just(0), st.integers(32, 16_384))),
        flash_attention=draw(st.booleans()),
        kv_cache=draw(st.sampled_from(["auto", "f16", "q8_0"])),
        memory_mapped=draw(st.booleans()),
        cores_count=draw(st.integers(1, 128)),
        margin_bytes=draw(st.sampled_from([0, 256 << 20, 1536 << 20])),
        prompt_cache_share=draw(st.sampled_from([0.0, 0.1, 0.9])),
        gpu=draw(st.booleans()),
    )


@st.composite
def load_shapes(draw: st.DrawFn) -> LoadShape:
    """A shape in which a model may be loaded, of whatever model."""
    context_tokens = padded_context(draw(st.integers(1, 1 << 18)))
    batch_tokens = min(draw(st.integers(32, 4096)), context_tokens)
    flash_attention = draw(st.booleans())
    slots_count = draw(st.sampled_from([1, 1, 2, 16]))
    return LoadShape(
        context_tokens=context_tokens,
        slots_count=slots_count,
        kv_unified=slots_count > 1,
        key_cache_type=draw(cache_types),
        value_cache_type=draw(cache_types) if flash_attention else KvCacheType.F16,
        batch_tokens=batch_tokens,
        micro_batch_tokens=min(draw(st.integers(32, 4096)), batch_tokens),
        flash_attention=flash_attention,
        gpu_layers_count=draw(st.integers(0, 131)),
        host_prompt_cache_bytes=draw(st.integers(0, 512)) << 20,
        memory_mapped=draw(st.booleans()),
    )


@st.composite
def needs(draw: st.DrawFn, contexts: st.SearchStrategy[int | None] = requested_contexts) -> Need:
    """Prompts from none to far beyond most models, counted or estimated."""
    return Need(
        prompt_tokens=draw(st.one_of(st.integers(0, 10_000), st.integers(0, 1 << 22))),
        prompt_is_exact=draw(st.booleans()),
        reply_tokens=draw(st.integers(1, 4096)),
        session_tokens=draw(st.one_of(st.just(0), st.integers(0, 1 << 17))),
        context_tokens=draw(contexts),
        profile=draw(profiles),
        swap_policy=draw(st.sampled_from(SwapPolicy)),
    )


@st.composite
def learned_facts(draw: st.DrawFn) -> Learned:
    """What may be known of a model, without measured loads."""
    return Learned(
        prefill_tokens_per_second=draw(st.one_of(st.just(0.0), st.floats(0.1, 1e6))),
        usual_context_tokens=draw(st.one_of(st.just(0), st.integers(0, 1 << 18))),
    )


@st.composite
def readings(draw: st.DrawFn) -> MemoryReading:
    """Machines of 1 GiB to 1 TiB in any state."""
    total_bytes = draw(st.integers(1, 1024)) << 30
    swap_total_bytes = draw(st.sampled_from([0, 2 << 30, 64 << 30]))
    return MemoryReading(
        total_bytes=total_bytes,
        available_bytes=total_bytes * draw(st.integers(0, 1000)) // 1000,
        swap_total_bytes=swap_total_bytes,
        swap_free_bytes=swap_total_bytes * draw(st.integers(0, 100)) // 100,
        stalled_ratio=draw(st.one_of(st.none(), st.floats(0, 1))),
        os_pressure_level=draw(st.sampled_from([None, 1, 2, 4])),
    )


@st.composite
def residents(draw: st.DrawFn) -> tuple[Resident, ...]:
    """Other models in memory, busy and idle."""
    return tuple(
        Resident(
            model_id=f"model-{number}",
            freed_bytes=draw(st.integers(0, 64 << 30)),
            is_busy=draw(st.booleans()),
            last_used_at=draw(st.floats(0, 1e9)),
        )
        for number in range(draw(st.integers(0, 5)))
    )


@st.composite
def memory_views(draw: st.DrawFn) -> MemoryView:
    """Memory as a plan sees it, in any state."""
    return MemoryView(
        reading=draw(readings()),
        pressure=draw(pressures),
        residents=draw(residents()),
        reserved_bytes=draw(st.one_of(st.just(0), st.integers(0, 64 << 30))),
    )


any_facts = model_facts()
any_memory = memory_views()
maybe_loaded = st.one_of(st.none(), load_shapes())


def situations(
    *,
    facts: st.SearchStrategy[ModelFacts] = any_facts,
    memory: st.SearchStrategy[MemoryView] = any_memory,
    loaded: st.SearchStrategy[LoadShape | None] = maybe_loaded,
) -> st.SearchStrategy[Situation]:
    """What a plan looks at. A loaded shape, if any, need not be one that this model would have got."""
    return st.builds(
        Situation,
        facts=facts,
        learned=learned_facts(),
        defaults=shape_defaults(),
        memory=memory,
        loaded=loaded,
        loaded_freed_bytes=st.integers(0, 8 << 30),
        loaded_footprint=st.none(),
    )
