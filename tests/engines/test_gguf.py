"""The header reader: what it keeps, what it refuses, what it costs."""

import struct
import time
import tracemalloc
from pathlib import Path

import gguf as reference
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autotuned.core.errors import ModelInvalid
from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.engines.gguf import MAX_KEPT_BYTES, read_header
from autotuned.engines.gguf_facts.facts import FILE_TYPES, model_facts
from autotuned.engines.gguf_types import TENSOR_TYPES
from autotuned.engines.llamacpp.discovery import POCKET
from autotuned.policy.kv import checkpoint_bytes, state_bytes
from tests.engines.gguf_files import ARRAY, LLAMA, ONE_TENSOR, STRING, Typed, gguf, string, tensor, write

POCKET_BYTES = POCKET.read_bytes()
# Where the tensor data of the pocket model begins; damage behind it is the engine's business.
HEADER_BYTES = 63_456
LARGEST = LoadShape(
    context_tokens=1 << 30,
    slots_count=16,
    kv_unified=False,
    key_cache_type=KvCacheType.F16,
    value_cache_type=KvCacheType.F16,
    batch_tokens=1 << 14,
    micro_batch_tokens=1 << 14,
    flash_attention=False,
    gpu_layers_count=0,
    host_prompt_cache_bytes=0,
    memory_mapped=True,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gguf"


def test_the_pocket_model_says_what_it_is():
    header = read_header(POCKET)
    assert header.tensors_count == 38
    assert header.parameters_count == 2_115_264
    assert header.weights_by_type == {"Q8_0": 2_245_632, "F32": 6912}
    assert header.values["general.name"] == "autotune-pocket"
    assert header.values["llama.rope.freq_base"] == 10_000.0
    assert header.values["tokenizer.ggml.add_bos_token"] is False
    assert "tokenizer.ggml.tokens" not in header.values
    assert "tokenizer.ggml.token_type" not in header.values


def test_it_agrees_with_the_reference_reader():
    ours = read_header(POCKET)
    theirs = reference.GGUFReader(POCKET)
    assert {key: theirs.fields[key].contents() for key in ours.values} == ours.values
    assert sum(int(each.n_bytes) for each in theirs.tensors) == ours.weights_bytes
    assert sum(int(each.n_elements) for each in theirs.tensors) == ours.parameters_count


def test_the_tables_agree_with_the_reference():
    sizes = {kind.value: (kind.name, *size) for kind, size in reference.GGML_QUANT_SIZES.items()}
    for number, row in TENSOR_TYPES.items():
        if number in sizes:
            assert row == sizes[number]
    names = {
        kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in reference.LlamaFileType
    }
    for number, name in FILE_TYPES.items():
        assert names[number].removesuffix("_MOE") == name


def test_every_kind_of_value_is_read(path):
    values = {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": "text",
        "e": [1, 2],
        "f": [True, False],
        "g": ["x", "y"],
        "h": [],
    }
    write(path, values)
    assert read_header(path).values == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": "text",
        "e": (1, 2),
        "f": (True, False),
        "h": (),
    }
    assert read_header(path).lengths == {"e": 2, "f": 2, "g": 2, "h": 0}


def test_version_2_is_read(path):
    write(path, LLAMA, version=2)
    assert read_header(path).values["llama.block_count"] == 2


def test_a_value_that_is_not_text_is_made_text(path):
    write(path, {"a": Typed(STRING, string(b"\xff!"))})
    assert read_header(path).values["a"] == "\N{REPLACEMENT CHARACTER}!"


def test_another_alignment_moves_the_data(path):
    write(path, LLAMA | {"general.alignment": 4096}, alignment=4096)
    assert read_header(path).weights_bytes == 512
    write(path, LLAMA | {"general.alignment": 4096}, alignment=32)
    with pytest.raises(ModelInvalid, match="is incomplete"):
        read_header(path)


HUGE = struct.pack("<Q", 1 << 62)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", 'does not start with "GGUF"'),
        (b"GG", 'does not start with "GGUF"'),
        (b"PK\x03\x04" + bytes(100), 'does not start with "GGUF"'),
        (b"GGUF", "is cut off inside its header, after 4 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "is GGUF version 1"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0), "is GGUF version 99"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "claims 1,152,921,504,606,846,976 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "which no model has"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1), "is cut off inside its header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + HUGE, "claims a string of"),
        (gguf({"a": Typed(77, b"")}), 'a value of unknown type 77 for "a"'),
        (gguf({"a": Typed(STRING, HUGE)}), "claims a string of"),
        (gguf({"a": Typed(ARRAY, struct.pack("<I", 4) + HUGE)}), 'elements for "a", which no model has'),
        (gguf({"a": Typed(ARRAY, struct.pack("<IQ", 4, 10_000_000))}), "is cut off"),
        (gguf({"a": Typed(ARRAY, struct.pack("<IQ", STRING, 10_000_000))}), "more than 8,000,000 strings"),
        (gguf({"a": Typed(ARRAY, struct.pack("<IQ", STRING, 1) + HUGE)}), "is cut off"),
        (gguf({"a": Typed(ARRAY, struct.pack("<IQ", ARRAY, 1))}), "unknown type 9"),
        (gguf({"general.alignment": 24}), "an alignment of 24, which is not a power of two"),
        (gguf({"general.alignment": 0}), "an alignment of 0"),
        (gguf({"general.alignment": "x"}), "an alignment that is not a whole number"),
        (gguf({"general.alignment": True}), "an alignment that is not a whole number"),
        (gguf({}, [tensor("w", (64,), 0, 0)], 255), "its tensors end at byte 320, but it has 319 bytes"),
        (gguf({}, [tensor("w", (64,), 0, 1 << 40)], 256), "is incomplete"),
        (gguf({}, [tensor("w", (64,), 0, 8)], 512), "off its alignment of 32"),
        (gguf({}, [tensor("w", (64,), 99, 0)], 512), "as type 99, which is unknown"),
        (gguf({}, [tensor("w", (33,), 8, 0)], 512), "rows of 33 in the tensor"),
        (gguf({}, [tensor("w", (64,), 0, 0)] * 2, 256), "tensors that lie over each other"),
        (gguf({}, [tensor("w", (), 0, 0)], 512), "claims 0 dimensions"),
        (gguf({}, [tensor("w", (1,) * 5, 0, 0)], 512), "claims 5 dimensions"),
        (gguf({}, [tensor("w", (0,), 0, 0)], 512), "an impossible shape"),
        (gguf({}, [tensor("w", (1 << 40, 1 << 40), 0, 0)], 512), "an impossible shape"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(path, content, sentence):
    path.write_bytes(content)
    with pytest.raises(ModelInvalid, match=sentence) as refusal:
        read_header(path)
    assert refusal.value.metadata["path"] == str(path)
    assert refusal.value.message.startswith(f'"{path}" ')
    assert refusal.value.message.endswith(".")


def test_a_key_may_come_only_once(path):
    twice = string("a") + struct.pack("<II", 4, 1)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + twice + twice)
    with pytest.raises(ModelInvalid, match='the key "a" twice'):
        read_header(path)


def test_a_key_must_be_text(path):
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"\xff") + struct.pack("<II", 4, 1))
    with pytest.raises(ModelInvalid, match="a metadata key that is not text"):
        read_header(path)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ModelInvalid, match="cannot be read: No such file"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(ModelInvalid, match="cannot be read: Is a directory"):
        read_header(tmp_path)


def test_metadata_without_end_is_refused(path):
    text = "x" * (MAX_KEPT_BYTES // 8)
    write(path, {f"key{number}": text for number in range(10)})
    with pytest.raises(ModelInvalid, match="bytes of metadata"):
        read_header(path)


def vocabulary(count: int) -> Typed:
    tokens = b"".join(string(f"token{number}") for number in range(count))
    return Typed(ARRAY, struct.pack("<IQ", STRING, count) + tokens)


def test_a_large_vocabulary_costs_milliseconds_and_no_memory(path):
    count = 150_000
    scores = Typed(ARRAY, struct.pack("<IQ", 6, count) + bytes(4 * count))
    write(path, LLAMA | {"tokens": vocabulary(count), "merges": vocabulary(2 * count), "scores": scores})
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        read_header(path)
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.3
    tracemalloc.start()
    try:
        assert read_header(path).values["llama.block_count"] == 2
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "model.gguf"


def examine(path: Path, content: bytes) -> None:
    """Damaged as it may be, a file has facts or a ``ModelInvalid``."""
    path.write_bytes(content)
    try:
        facts = model_facts((read_header(path),), path)
    except ModelInvalid as error:
        assert error.message.isprintable()  # noqa: PT017 - either ending is right
    else:
        assert sum(group.layers_count for group in facts.layer_groups) == facts.layers_count <= 512
        assert facts.weights_bytes <= len(content)
        # What is sent of it, in 64 bits.
        assert state_bytes(facts, LARGEST) < 1 << 63
        assert checkpoint_bytes(facts, LARGEST) < 1 << 63


FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.lists(st.tuples(st.integers(0, HEADER_BYTES * 8 - 1)), min_size=1, max_size=20))
def test_flipped_bits_never_surprise(scratch, flips):
    content = bytearray(POCKET_BYTES)
    for (position,) in flips:
        content[position // 8] ^= 1 << position % 8
    examine(scratch, bytes(content))


@FUZZ
@given(st.integers(0, HEADER_BYTES + 1000))
@example(HEADER_BYTES)
def test_cut_files_never_surprise(scratch, length):
    examine(scratch, POCKET_BYTES[:length])


@FUZZ
@given(st.integers(0, HEADER_BYTES - 8), st.binary(min_size=1, max_size=8))
def test_overwritten_bytes_never_surprise(scratch, position, junk):
    examine(scratch, POCKET_BYTES[:position] + junk + POCKET_BYTES[position + len(junk) :])


@FUZZ
@given(st.binary(max_size=200))
def test_random_bytes_never_surprise(scratch, junk):
    examine(scratch, b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + junk)


KEYS = [
    "block_count",
    "embedding_length",
    "context_length",
    "feed_forward_length",
    "vocab_size",
    "nextn_predict_layers",
    "num_loops",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "attention.key_length_mla",
    "attention.value_length_mla",
    "attention.indexer.key_length",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.shared_kv_layers",
    "attention.recurrent_layers",
    "full_attention_interval",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.group_count",
    "shortconv.l_cache",
    "wkv.head_size",
    "token_shift_count",
    "kda.head_dim",
]
LIES = st.one_of(
    st.integers(0, 80),
    st.integers(0, (1 << 32) - 1),
    st.booleans(),
    st.text(max_size=3),
    st.floats(width=32),
    st.lists(st.integers(0, 80), max_size=6),
    st.lists(st.integers(0, (1 << 32) - 1), max_size=6),
    st.lists(st.booleans(), max_size=6),
    st.lists(st.floats(width=32), max_size=3),
    st.lists(st.text(max_size=2), max_size=3),
    st.integers(-(1 << 31), -1).map(lambda number: Typed(5, struct.pack("<i", number))),
    st.integers(0, (1 << 64) - 1).map(lambda number: Typed(10, struct.pack("<Q", number))),
)
ARCHITECTURES = sorted(
    {"llama", "newer", "mamba", "jamba", "nemotron_h", "qwen3next", "kimi-linear", "minimax-01", "deepseek32"}
    | {"gemma3", "gemma3n", "gemma4", "llama4", "exaone4", "lfm2", "rwkv7", "falcon-h1", "nanbeige", "plamo2"}
)


@FUZZ
@given(st.sampled_from(ARCHITECTURES), st.dictionaries(st.sampled_from(KEYS), LIES, max_size=8))
def test_headers_that_lie_never_surprise(scratch, architecture, lies):
    sound = {
        "block_count": 4,
        "embedding_length": 64,
        "context_length": 4096,
        "attention.head_count": 4,
    }
    values = {f"{architecture}.{key}": value for key, value in (sound | lies).items()}
    examine(scratch, gguf({"general.architecture": architecture} | values))


def test_the_header_ends_where_the_fuzzing_ends(path):
    """The fuzzed part is the header, all of it."""
    path.write_bytes(POCKET_BYTES[:HEADER_BYTES])
    with pytest.raises(ModelInvalid, match="is incomplete"):
        read_header(path)
    path.write_bytes(POCKET_BYTES[: HEADER_BYTES - 64])
    with pytest.raises(ModelInvalid, match="is cut off inside its header"):
        read_header(path)


def test_a_file_without_tensors_is_read(path):
    write(path, LLAMA, (), 0)
    header = read_header(path)
    assert (header.tensors_count, header.weights_bytes) == (0, 0)
    assert ONE_TENSOR
