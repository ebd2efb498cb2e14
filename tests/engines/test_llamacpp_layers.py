"""What each layer keeps, by architecture: headers of well-known models, and of files that are odd."""

import pytest

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import LayerGroup
from autotuned.engines.gguf import read_header
from autotuned.engines.gguf_facts.facts import model_facts
from tests import examples
from tests.engines.gguf_files import write


@pytest.fixture
def groups_of(tmp_path):
    def groups(architecture, layers, width, **keys):
        path = tmp_path / "model.gguf"
        values = {
            "general.architecture": architecture,
            f"{architecture}.block_count": layers,
            f"{architecture}.embedding_length": width,
            f"{architecture}.context_length": 4096,
        }
        values |= {f"{architecture}.{key.replace('__', '.')}": value for key, value in keys.items()}
        facts = model_facts((read_header(write(path, values)),), path)
        assert facts.layers_count == sum(group.layers_count for group in facts.layer_groups)
        return facts.layer_groups

    return groups


def heads(kv_heads, length=128, query_heads=32, **more):
    return {
        "attention__head_count": query_heads,
        "attention__head_count_kv": kv_heads,
        "attention__key_length": length,
        "attention__value_length": length,
        **more,
    }


def full(count, kv_heads, length=128):
    return LayerGroup(layers_count=count, kv_heads=kv_heads, key_length=length, value_length=length)


def windowed(count, kv_heads, window, length=128):
    return LayerGroup(
        layers_count=count,
        kv_heads=kv_heads,
        key_length=length,
        value_length=length,
        window_tokens=window,
    )


def recurrent(count, elements):
    return LayerGroup(layers_count=count, recurrent_elements=elements)


WINDOW = "attention__sliding_window"
PATTERN = "attention__sliding_window_pattern"
STATE = {
    "ssm__conv_kernel": 4,
    "ssm__inner_size": 4096,
    "ssm__state_size": 128,
    "ssm__group_count": 16,
    "ssm__time_step_rank": 32,
}
GATED_DELTA_ELEMENTS = 3 * (4096 + 2 * 16 * 128) + 128 * 4096


@pytest.mark.parametrize(
    ("architecture", "sizes", "keys", "expected"),
    [
        ("llama", (32, 4096), {**heads(8)}, examples.LLAMA_3_1_8B.layer_groups),
        ("qwen3", (36, 4096), {**heads(8)}, examples.QWEN3_8B.layer_groups),
        ("gemma3", (48, 3840), {**heads(8, 256, 16), WINDOW: 1024}, examples.GEMMA3_12B.layer_groups),
        (
            "deepseek2",
            (61, 7168),
            {
                **heads(1, 576, 128),
                "attention__value_length": 512,
                "attention__key_length_mla": 192,
                "attention__value_length_mla": 128,
                "attention__kv_lora_rank": 512,
            },
            examples.DEEPSEEK_V3.layer_groups,
        ),
        ("qwen3next", (48, 2048), {**heads(2, 256, 16), **STATE}, examples.QWEN3_NEXT_80B.layer_groups),
        # Where the engine does not use the window that the file has.
        ("phi3", (32, 3072), {**heads(8, 96), WINDOW: 262_144}, (full(32, 8, 96),)),
        ("qwen2", (28, 3584), {**heads(4), WINDOW: 131_072}, (full(28, 4),)),
        ("exaone4", (30, 2048), {**heads(8), WINDOW: 4096}, (full(30, 8),)),
        ("llama4", (48, 5120), {**heads(8), WINDOW: 0}, (full(48, 8),)),
        ("olmo2", (32, 4096), {**heads(32)}, (full(32, 32),)),
        # Windows by the rule of the architecture.
        ("gemma2", (42, 3584), heads(8, 256), (windowed(21, 8, 4096, 256), full(21, 8, 256))),
        (
            "gpt-oss",
            (24, 2880),
            {**heads(8, 64, 64), WINDOW: 128},
            (windowed(12, 8, 128, 64), full(12, 8, 64)),
        ),
        ("cohere2", (32, 4096), {**heads(8), WINDOW: 4096}, (windowed(24, 8, 4096), full(8, 8))),
        ("olmo2", (64, 5120), {**heads(8), WINDOW: 4096}, (windowed(48, 8, 4096), full(16, 8))),
        ("exaone4", (64, 5120), {**heads(8), WINDOW: 4096}, (windowed(48, 8, 4096), full(16, 8))),
        ("llama4", (48, 5120), heads(8), (windowed(36, 8, 8192), full(12, 8))),
        ("llama4", (48, 5120), {**heads(8), WINDOW: 100}, (windowed(36, 8, 8192), full(12, 8))),
        ("smallthinker", (32, 1536), {**heads(2), WINDOW: 64}, (full(8, 2), windowed(24, 2, 4096))),
        (
            "gemma3",
            (12, 640),
            {**heads(1, 256), WINDOW: 512, PATTERN: 3},
            (windowed(8, 1, 512, 256), full(4, 1, 256)),
        ),
        # A list of layers instead of the rule, also one that is too short.
        (
            "step35",
            (4, 4096),
            {**heads(8), WINDOW: 512, PATTERN: [False, True, True, True]},
            (full(1, 8), windowed(3, 8, 512)),
        ),
        (
            "gemma3",
            (6, 640),
            {**heads(1), WINDOW: 512, PATTERN: [True, False, True]},
            (windowed(2, 1, 512), full(4, 1)),
        ),
        (
            "newer",
            (3, 640),
            {**heads(1), WINDOW: 512, PATTERN: [True, True, False]},
            (windowed(2, 1, 512), full(1, 1)),
        ),
        ("qwen3", (2, 640), {**heads(1), WINDOW: 512, PATTERN: [True, True]}, (full(2, 1),)),
        # Layers that use the cache of others.
        (
            "gemma3n",
            (30, 2048),
            {**heads(2, 256, 8), WINDOW: 512},
            (windowed(16, 2, 512, 256), full(4, 2, 256), LayerGroup(layers_count=10)),
        ),
        (
            "gemma4",
            (6, 1536),
            {
                **heads([1, 1, 1, 2, 1, 1], 512, 8),
                WINDOW: 512,
                PATTERN: [True, True, True, False, True, False],
                "attention__key_length_swa": 256,
                "attention__value_length_swa": 256,
                "attention__shared_kv_layers": 2,
            },
            (windowed(3, 1, 512, 256), full(1, 2, 512), LayerGroup(layers_count=2)),
        ),
        # Recurrent layers.
        (
            "mamba",
            (64, 2560),
            {
                "ssm__conv_kernel": 4,
                "ssm__inner_size": 5120,
                "ssm__state_size": 16,
                "ssm__time_step_rank": 160,
            },
            (recurrent(64, 3 * 5120 + 16 * 5120),),
        ),
        (
            "rwkv7",
            (24, 2048),
            {"wkv__head_size": 64, "attention__head_count": 0},
            (recurrent(24, (2 + 64) * 2048),),
        ),
        (
            "falcon-h1",
            (24, 2048),
            {**heads(2), **STATE},
            (
                LayerGroup(
                    layers_count=24,
                    kv_heads=2,
                    key_length=128,
                    value_length=128,
                    recurrent_elements=GATED_DELTA_ELEMENTS,
                ),
            ),
        ),
        (
            "lfm2",
            (4, 2048),
            {**heads([0, 0, 8, 0], 64), "shortconv__l_cache": 3},
            (recurrent(3, 2 * 2048), full(1, 8, 64)),
        ),
        (
            "lfm2",
            (4, 2048),
            {**heads([0, 0, 8, 0], 64), "shortconv__l_cache": 3, WINDOW: 256},
            (recurrent(3, 2 * 2048), windowed(1, 8, 256, 64)),
        ),
        (
            "nemotron_h",
            (6, 4096),
            {**heads([0, 0, 8, 0, 0, 0]), "feed_forward_length": [0, 99, 0, 99, 0, 99], **STATE},
            (recurrent(2, GATED_DELTA_ELEMENTS), LayerGroup(layers_count=3), full(1, 8)),
        ),
        (
            "qwen35",
            (9, 2048),
            {**heads(2, 256, 16), **STATE, "nextn_predict_layers": 1},
            (recurrent(6, GATED_DELTA_ELEMENTS), full(2, 2, 256), LayerGroup(layers_count=1)),
        ),
        (
            "qwen35",
            (3, 2048),
            {**heads(2, 256, 16), **STATE, "attention__recurrent_layers": [False, True, False]},
            (full(2, 2, 256), recurrent(1, GATED_DELTA_ELEMENTS)),
        ),
        (
            "kimi-linear",
            (4, 2304),
            {
                **heads([0, 0, 0, 1], 576),
                "attention__key_length_mla": 192,
                "attention__value_length_mla": 128,
                "ssm__conv_kernel": 4,
                "kda__head_dim": 128,
            },
            (
                recurrent(3, 32 * 128 * (3 * 3 + 128)),
                LayerGroup(layers_count=1, kv_heads=1, key_length=576),
            ),
        ),
        (
            "minimax-01",
            (8, 6144),
            heads(8, 128, 64),
            (recurrent(7, 128 * 128 * 64), full(1, 8)),
        ),
        # Layers that predict further tokens have a place in the caches of most hybrids alone.
        (
            "glm4moe",
            (47, 4096),
            {**heads(8), "nextn_predict_layers": 1},
            (full(46, 8), LayerGroup(layers_count=1)),
        ),
        (
            "mimo2",
            (3, 4096),
            {**heads(8), "nextn_predict_layers": 1, WINDOW: 128, PATTERN: [True, False, False]},
            (windowed(1, 8, 128), full(1, 8), LayerGroup(layers_count=1)),
        ),
        (
            "granitehybrid",
            (3, 2048),
            {**heads([0, 2, 2]), **STATE, "nextn_predict_layers": 1},
            (recurrent(1, GATED_DELTA_ELEMENTS), full(2, 2)),
        ),
        # Sparse attention keeps keys of its indexer too.
        (
            "deepseek32",
            (61, 7168),
            {
                **heads(1, 576, 128),
                "attention__key_length_mla": 192,
                "attention__value_length_mla": 128,
                "attention__indexer__key_length": 128,
            },
            (LayerGroup(layers_count=61, kv_heads=1, key_length=576 + 128),),
        ),
        # Layers that run more than once have a cache for each time.
        ("nanbeige", (8, 4096), {**heads(8), "num_loops": 3}, (full(24, 8),)),
        ("llama", (8, 4096), {**heads(8), "num_loops": 3}, (full(8, 8),)),
        # Architectures that are newer than the rules.
        (
            "newer",
            (4, 2048),
            {**heads([0, 2, 0, 2]), **STATE},
            (recurrent(2, GATED_DELTA_ELEMENTS), full(2, 2)),
        ),
        ("newer", (2, 2048), {"wkv__head_size": 64}, (recurrent(2, 66 * 2048),)),
    ],
)
def test_layers_by_architecture(groups_of, architecture, sizes, keys, expected):
    assert groups_of(architecture, *sizes, **keys) == expected


def test_a_newer_model_with_both_keeps_both(groups_of):
    (group,) = groups_of("newer", 4, 2048, **heads(2), **STATE)
    assert (group.kv_heads, group.recurrent_elements) == (2, GATED_DELTA_ELEMENTS)
    (group,) = groups_of("deepseek4", 4, 2048, **heads(1))
    assert group.kv_heads
    assert group.recurrent_elements


def test_heads_of_the_first_layer_decide_how_long_they_are(groups_of):
    assert groups_of("deci", 2, 4096, attention__head_count=[32, 16]) == (full(1, 32), full(1, 16))
    with pytest.raises(ModelInvalid, match="neither attention heads nor recurrent layers"):
        groups_of("newer", 2, 4096, attention__head_count=[0, 16])


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"attention__head_count": 5000}, "which no model has"),
        ({"attention__head_count": 8, "attention__key_length": 1 << 21}, "which no model has"),
        ({"attention__head_count": 4096, "attention__key_length": 1 << 20}, "cached numbers for each token"),
        ({"attention__head_count": [8] * 3}, "has 3 values .* but 4 layers"),
        ({"attention__head_count": [8] * 2000}, "has 2,000 values .* but 4 layers"),
        ({"attention__head_count": [True] * 4}, "not a list of whole numbers"),
        ({"attention__head_count": [float("nan")] * 4}, "not a list of whole numbers"),
        ({"attention__head_count": float("nan")}, "not a whole number"),
        ({"attention__head_count": float("inf")}, "not a whole number"),
        ({"nextn_predict_layers": 4}, "which no model has"),
    ],
)
def test_layers_that_no_model_has(groups_of, keys, sentence):
    with pytest.raises(ModelInvalid, match=sentence):
        groups_of("llama", 4, 4096, **keys)


@pytest.mark.parametrize(
    ("architecture", "keys", "sentence"),
    [
        ("gemma3", {WINDOW: (1 << 30) + 1}, "which no model has"),
        ("gemma3", {WINDOW: 512, PATTERN: 1 << 30}, "which no model has"),
        ("gemma4", {"attention__shared_kv_layers": 5}, "which no model has"),
        ("qwen3next", {"full_attention_interval": 0}, "which no model has"),
        ("qwen3next", {**STATE, "ssm__inner_size": 1 << 20, "ssm__state_size": 1 << 20}, "for each sequence"),
        ("mamba", {"ssm__state_size": "many"}, "not a whole number"),
        ("nanbeige", {"num_loops": 1000}, "which no model has"),
    ],
)
def test_states_that_no_model_has(groups_of, architecture, keys, sentence):
    with pytest.raises(ModelInvalid, match=sentence):
        groups_of(architecture, 4, 4096, **heads(8), **keys)
