"""What planning is told of a model, from its metadata."""

from dataclasses import replace

import pytest

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import LayerGroup
from autotuned.engines.gguf import read_header
from autotuned.engines.gguf_facts.facts import model_facts
from autotuned.engines.llamacpp.discovery import POCKET
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
    assert facts.rewinds


def test_what_is_not_said_is_what_the_engine_takes(facts_of):
    facts = facts_of({})
    assert facts.name == "some-model"
    assert facts.quantization == "F32"
    assert facts.weights_bytes_by_type == (("F32", 512),)
    assert facts.layer_groups == (LayerGroup(layers_count=2, kv_heads=4, key_length=16, value_length=16),)
    assert facts.vocabulary_size == 0
    assert facts.chat_template == ""
    assert not facts.calls_tools
    assert not facts.thinks
    assert facts.modalities == ("text",)


def test_heads_may_differ_from_layer_to_layer(facts_of):
    facts = facts_of({"llama.attention.head_count": [4, 8], "llama.attention.head_count_kv": [2, 0]})
    assert facts.layer_groups == (
        LayerGroup(layers_count=1, kv_heads=2, key_length=16, value_length=16),
        LayerGroup(layers_count=1, kv_heads=0, key_length=16, value_length=16),
    )


def test_lengths_of_keys_and_values_are_their_own(facts_of):
    (group,) = facts_of({"llama.attention.key_length": 128, "llama.attention.value_length": 96}).layer_groups
    assert (group.key_length, group.value_length) == (128, 96)


def test_a_model_without_attention_has_no_kv(facts_of):
    facts = facts_of({"llama.attention.head_count": None, "llama.ssm.state_size": 16})
    assert not any(group.kv_heads for group in facts.layer_groups)
    assert not facts.rewinds


def test_the_vocabulary_is_as_large_as_the_list_that_is_not_read(facts_of):
    tokens = [f"t{number}" for number in range(5000)]
    assert facts_of({"tokenizer.ggml.tokens": tokens, "llama.vocab_size": 7}).vocabulary_size == 5000
    assert facts_of({"llama.vocab_size": 7}).vocabulary_size == 7


@pytest.mark.parametrize(
    ("template", "calls_tools", "thinks"),
    [
        ("{{ messages }}", False, False),
        ("{% if tools %}{{ tools | tojson }}{% endif %}", True, False),
        ("{{ toolshed }} and footools", False, False),
        ("{% if enable_thinking is false %}{% endif %}", False, True),
        ("{{ '<think>' }}{% for tool in tools %}", True, True),
        ("{{ content.split('</think>')[-1] }}", False, False),
        ("Reasoning: {{ reasoning_effort }}<|channel|>analysis", False, True),
    ],
)
def test_what_a_template_can_do(facts_of, template, calls_tools, thinks):
    facts = facts_of({"tokenizer.chat_template": template})
    assert (facts.calls_tools, facts.thinks) == (calls_tools, thinks)


def test_bytes_are_told_by_type_with_the_largest_first(facts_of):
    tensors = (tensor("a", (64, 4), 8, 0), tensor("b", (64,), 0, 288), tensor("c", (64,), 0, 544))
    facts = facts_of({}, tensors, 1024)
    assert facts.weights_bytes_by_type == (("F32", 512), ("Q8_0", 272))
    assert facts.weights_bytes == 784


def test_equal_content_has_one_digest_wherever_it_lies(tmp_path):
    paths = [write(tmp_path / name, LLAMA | {"general.name": "x"}) for name in ("a.gguf", "b.gguf")]
    one, other = (model_facts((read_header(path),), path) for path in paths)
    assert one == other
    assert len(one.digest) == 64


@pytest.mark.parametrize("position", [0, (1 << 20) - 1])
def test_other_weights_have_another_digest(tmp_path, position):
    """The first and the last byte of the tensor data are always looked at."""
    path = write(tmp_path / "a.gguf", LLAMA, (tensor("w", (1 << 18,), 0, 0),), 1 << 20)
    before = read_header(path)
    content = bytearray(path.read_bytes())
    content[len(content) - (1 << 20) + position] ^= 1
    path.write_bytes(content)
    assert read_header(path).fingerprint != before.fingerprint


def test_another_template_or_another_part_has_another_digest(tmp_path):
    def digest(*changes):
        paths = [write(tmp_path / f"{number}.gguf", LLAMA | change) for number, change in enumerate(changes)]
        return model_facts(tuple(read_header(path) for path in paths), paths[0]).digest

    assert digest({}) != digest({"tokenizer.chat_template": "x"})
    assert digest({}) != digest({}, {})
    assert digest({}, {"x": 1}) != digest({}, {"x": 2})


def test_a_large_file_is_named_by_samples_of_it(tmp_path):
    """A sparse file of 64 GiB, which nothing could read in a test's time."""
    count = 1 << 34
    path = write(tmp_path / "huge.gguf", LLAMA, (tensor("w", (1 << 20, count >> 20), 0, 0),), 0)
    header_bytes = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(header_bytes + 4 * count)
    zeros = read_header(path).fingerprint
    assert read_header(path).fingerprint == zeros
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert read_header(path).fingerprint != zeros


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
        ({"llama.context_length": 0}, 'has 0 for "llama.context_length"'),
        ({"llama.context_length": (1 << 30) + 1}, "which no model has"),
        ({"llama.context_length": float("nan")}, "that is not a whole number"),
        ({"llama.embedding_length": 1 << 31}, "which no model has"),
        ({"llama.vocab_size": "many"}, "that is not a whole number"),
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
