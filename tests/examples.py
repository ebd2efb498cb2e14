"""Plain values that tests start from: the pocket model, a question to it, the usual defaults."""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.learning import Learned
from autotuned.core.memory import MemoryReading, MemoryView, PressureTier
from autotuned.core.model import LayerGroup, ModelFacts
from autotuned.core.plan import LoadShape, Need
from autotuned.policy.plan import ShapeDefaults, Situation

POCKET = ModelFacts(
    digest="748d81ce5c7c41682d711b26f762bbad2e1a454d11d1f1dcce87a90817cb7c63",
    architecture="llama",
    name="autotune-pocket",
    quantization="Q8_0",
    parameters_count=2_115_264,
    weights_bytes=2_252_544,
    weights_bytes_by_type=(("Q8_0", 2_245_632), ("F32", 6912)),
    layers_count=4,
    embedding_length=192,
    vocabulary_size=2048,
    layer_groups=(LayerGroup(layers_count=4, kv_heads=2, key_length=32, value_length=32),),
    train_context_tokens=8192,
    chat_template="",
    calls_tools=True,
)

# Well-known models as their files describe them, for the arithmetic of models that are not here.
LLAMA_3_1_8B = ModelFacts(
    digest="llama-3.1-8b",
    architecture="llama",
    name="Llama 3.1 8B Instruct",
    quantization="Q4_K_M",
    parameters_count=8_030_261_312,
    weights_bytes=4_912_898_304,
    weights_bytes_by_type=(("Q4_K", 3_838_574_592), ("Q6_K", 1_073_258_496), ("F32", 1_065_216)),
    layers_count=32,
    embedding_length=4096,
    vocabulary_size=128_256,
    layer_groups=(LayerGroup(layers_count=32, kv_heads=8, key_length=128, value_length=128),),
    train_context_tokens=131_072,
    chat_template="",
    calls_tools=True,
)
QWEN3_8B = ModelFacts(
    digest="qwen3-8b",
    architecture="qwen3",
    name="Qwen3 8B",
    quantization="Q4_K_M",
    parameters_count=8_190_735_360,
    weights_bytes=5_021_816_832,
    weights_bytes_by_type=(("Q4_K", 3_932_160_000), ("Q6_K", 1_088_421_888), ("F32", 1_234_944)),
    layers_count=36,
    embedding_length=4096,
    vocabulary_size=151_936,
    layer_groups=(LayerGroup(layers_count=36, kv_heads=8, key_length=128, value_length=128),),
    train_context_tokens=40_960,
    chat_template="",
    calls_tools=True,
    thinks=True,
)
GEMMA3_12B = ModelFacts(
    digest="gemma3-12b",
    architecture="gemma3",
    name="Gemma 3 12B",
    quantization="Q4_K_M",
    parameters_count=11_766_034_176,
    weights_bytes=7_294_857_216,
    weights_bytes_by_type=(("Q4_K", 5_700_000_000), ("Q6_K", 1_591_857_216), ("F32", 3_000_000)),
    layers_count=48,
    embedding_length=3840,
    vocabulary_size=262_208,
    layer_groups=(
        LayerGroup(layers_count=40, kv_heads=8, key_length=256, value_length=256, window_tokens=1024),
        LayerGroup(layers_count=8, kv_heads=8, key_length=256, value_length=256),
    ),
    train_context_tokens=131_072,
    chat_template="",
)
DEEPSEEK_V3 = ModelFacts(
    digest="deepseek-v3",
    architecture="deepseek2",
    name="DeepSeek V3",
    quantization="Q4_K_M",
    parameters_count=671_026_404_352,
    weights_bytes=404_430_186_496,
    weights_bytes_by_type=(("Q4_K", 360_000_000_000), ("Q6_K", 44_000_000_000), ("F32", 430_186_496)),
    layers_count=61,
    embedding_length=7168,
    vocabulary_size=129_280,
    layer_groups=(LayerGroup(layers_count=61, kv_heads=1, key_length=576),),
    train_context_tokens=163_840,
    chat_template="",
)
QWEN3_NEXT_80B = ModelFacts(
    digest="qwen3-next-80b",
    architecture="qwen3next",
    name="Qwen3 Next 80B A3B Instruct",
    quantization="Q4_K_M",
    parameters_count=79_674_391_296,
    weights_bytes=48_410_988_544,
    weights_bytes_by_type=(("Q4_K", 40_000_000_000), ("Q6_K", 8_400_000_000), ("F32", 10_988_544)),
    layers_count=48,
    embedding_length=2048,
    vocabulary_size=151_936,
    layer_groups=(
        LayerGroup(layers_count=36, recurrent_elements=3 * (4096 + 2 * 16 * 128) + 128 * 4096),
        LayerGroup(layers_count=12, kv_heads=2, key_length=256, value_length=256),
    ),
    train_context_tokens=262_144,
    chat_template="",
    calls_tools=True,
)

DEFAULTS = ShapeDefaults(
    slots_count=1,
    batch_tokens=512,
    flash_attention=True,
    kv_cache="auto",
    memory_mapped=True,
    cores_count=2,
    margin_bytes=1536 << 20,
    prompt_cache_share=0.1,
    gpu=False,
)
PLENTY = MemoryReading(
    total_bytes=64 << 30, available_bytes=48 << 30, swap_total_bytes=8 << 30, swap_free_bytes=8 << 30
)


def situation(
    facts: ModelFacts = POCKET,
    loaded: LoadShape | None = None,
    *,
    defaults: ShapeDefaults = DEFAULTS,
    learned: Learned | None = None,
    memory: MemoryView | None = None,
) -> Situation:
    """A calm machine with plenty of memory, unless told otherwise."""
    return Situation(
        facts=facts,
        learned=learned or Learned(),
        defaults=defaults,
        memory=memory or MemoryView(reading=PLENTY, pressure=PressureTier.NORMAL),
        loaded=loaded,
    )


def short_memory(
    available_bytes: int, *, total_bytes: int = 16 << 30, swap_free_bytes: int = 0
) -> MemoryReading:
    """A machine with little memory left."""
    return replace(
        PLENTY,
        total_bytes=total_bytes,
        available_bytes=available_bytes,
        swap_total_bytes=swap_free_bytes,
        swap_free_bytes=swap_free_bytes,
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
