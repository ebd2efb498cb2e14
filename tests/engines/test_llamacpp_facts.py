"""What planning is told of a model, from its metadata."""

from dataclasses import replace

import pytest

from autotuned.core.errors import ModelInvalid
from autotuned.engines.gguf import read_header
from autotuned.engines.llamacpp.discovery import POCKET
from autotuned.engines.llamacpp.facts import model_facts
from tests import examples
from tests.engines.gguf_files import LLAMA, tensor, write


@pytest.fixture
def facts_of(tmp_path):
    def facts(changes, *rest):
        path = tmp_path / "some-model.gguf"
        values = {key: value for key, value in (LLAMA | changes).items() if value is not None}
        return model_facts((read_header(write(path, values, *rest)),), path)

    return facts


def test_the_pocket_model():
    facts = model_facts((read_header(POCKET),), POCKET)
    assert facts.chat_template.startswith("{%- if tools %}")
    assert facts == replace(examples.POCKET, chat_template=facts.chat_template)


def test_what_is_not_said_is_what_the_engine_takes(facts_of):
    facts = facts_of({})
    assert facts.name == "some-model"
    assert facts.quantization == "F32"
    assert facts.kv_heads_per_layer == (4, 4)
    assert (facts.key_length, facts.value_length) == (16, 16)
    assert facts.chat_template == ""
    assert facts.kv_is_dense


def test_heads_may_differ_from_layer_to_layer(facts_of):
    facts = facts_of({"llama.attention.head_count": [4, 8], "llama.attention.head_count_kv": [2, 0]})
    assert facts.kv_heads_per_layer == (2, 0)
    assert facts.key_length == 8
    assert not facts.kv_is_dense


def test_lengths_of_keys_and_values_are_their_own(facts_of):
    facts = facts_of({"llama.attention.key_length": 128, "llama.attention.value_length": 96})
    assert (facts.key_length, facts.value_length) == (128, 96)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.sliding_window", 512),
        ("attention.sliding_window_pattern", [True, False]),
        ("attention.kv_lora_rank", 512),
        ("attention.key_length_mla", 192),
        ("attention.shared_kv_layers", 10),
        ("full_attention_interval", 4),
        ("ssm.state_size", 128),
        ("shortconv.l_cache", 3),
        ("wkv.head_size", 64),
    ],
)
def test_other_state_than_plain_attention_is_not_dense(facts_of, key, value):
    assert not facts_of({f"llama.{key}": value}).kv_is_dense
    assert facts_of({f"other.{key}": value}).kv_is_dense


def test_a_window_of_0_is_none(facts_of):
    assert facts_of({"llama.attention.sliding_window": 0}).kv_is_dense


def test_a_model_without_attention_has_no_kv(facts_of):
    facts = facts_of({"llama.attention.head_count": None, "llama.ssm.state_size": 16})
    assert facts.kv_heads_per_layer == (0, 0)
    assert not facts.kv_is_dense


def test_an_unknown_file_type_is_the_type_of_most_bytes(facts_of):
    tensors = (tensor("a", (64, 4), 8, 0), tensor("b", (64,), 0, 288))
    assert facts_of({"general.file_type": 999}, tensors, 1024).quantization == "Q8_0"
    assert facts_of({"general.file_type": 15}, tensors, 1024).quantization == "Q4_K_M"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"general.architecture": None}, 'does not say its "general.architecture"'),
        ({"general.architecture": 5}, 'a value for "general.architecture" that is not text'),
        ({"llama.block_count": None}, 'does not say its "llama.block_count"'),
        ({"llama.block_count": "two"}, "that is not a whole number"),
        ({"llama.block_count": True}, "that is not a whole number"),
        ({"llama.block_count": 0}, 'has 0 for "llama.block_count", which no model has'),
        ({"llama.block_count": 5000}, "has 5,000 for"),
        ({"llama.embedding_length": 0}, "has 0 for"),
        ({"llama.context_length": None}, 'does not say its "llama.context_length"'),
        ({"llama.attention.head_count_kv": [1, 2, 3]}, "has 3 values .* but 2 layers"),
        ({"llama.attention.head_count_kv": [1.5, 2.5]}, "that is not a list of whole numbers"),
        ({"llama.attention.head_count_kv": 1.5}, "that is not a whole number"),
        ({"general.type": "adapter"}, "holds a adapter, not a model|holds an adapter"),
        ({"llama.attention.causal": False}, "holds an embedding model"),
        ({"general.name": 7}, "that is not text"),
    ],
)
def test_what_no_engine_can_run_is_refused(facts_of, changes, sentence):
    with pytest.raises(ModelInvalid, match=sentence):
        facts_of(changes)


def test_a_file_without_weights_is_refused(facts_of):
    with pytest.raises(ModelInvalid, match="has no weights"):
        facts_of({}, (), 0)
