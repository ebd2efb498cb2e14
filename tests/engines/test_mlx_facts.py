"""What a folder says of its model, without MLX, and which folders are models."""

import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace

import pytest

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import CacheLayout, LayerGroup
from autotuned.engines.mlx.discovery import ModelFolders
from autotuned.engines.mlx.facts import model_facts
from autotuned.engines.mlx.safetensors import read_header
from autotuned.engines.stores.folders import NO_STORES
from tests.engines.mlx_paths import POCKET


@pytest.fixture
def folder(tmp_path):
    """A copy of the pocket model."""
    return shutil.copytree(POCKET, tmp_path / "models" / "mine")


def change(folder, **values):
    """Changes the configuration; None takes a value away."""
    path = folder / "config.json"
    changed = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))


def safetensors(path, tensors):
    """A file with tensors that are all zeros: name, type, shape."""
    sizes = {"F32": 4, "BF16": 2, "F16": 2, "U32": 4}
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        count = 1
        for length in shape:
            count *= length
        start, end = end, end + count * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    data = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data + bytes(end))


def test_the_pocket_model():
    facts = model_facts(POCKET)
    assert (facts.architecture, facts.quantization, facts.parameters_count) == ("llama", "F16", 2_115_264)
    assert facts.weights_bytes == 2 * facts.parameters_count
    assert facts.layer_groups == (LayerGroup(layers_count=4, kv_heads=2, key_length=32, value_length=32),)
    assert (facts.train_context_tokens, facts.vocabulary_size, facts.embedding_length) == (8192, 2048, 192)
    assert (facts.calls_tools, facts.thinks, facts.rewinds) == (True, False, True)
    assert (facts.cache_layout, facts.cache_element_bytes) == (CacheLayout.MLX, 2)
    assert "im_start" in facts.chat_template


def test_facts_need_no_mlx():
    program = (
        "import sys; from pathlib import Path; from autotuned.engines.mlx.facts import model_facts;"
        "from autotuned.engines.mlx.engine import MlxEngine;"
        f"model_facts(Path({str(POCKET)!r}));"
        "print(*sorted({'mlx', 'mlx_lm', 'numpy', 'transformers', 'llguidance'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() == ""


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_the_digest_is_that_of_the_content(folder, name):
    digest = model_facts(folder).digest
    assert digest == model_facts(POCKET).digest
    path = folder / name
    path.write_text(path.read_text() + "\n")
    assert model_facts(folder).digest != digest


def test_other_weights_have_another_digest(folder):
    digest = model_facts(folder).digest
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert model_facts(folder).digest != digest


def test_packed_weights_count_as_they_were_trained(folder):
    change(folder, quantization={"group_size": 64, "bits": 4, "model.b": {"bits": 8, "group_size": 64}})
    tensors = {
        "model.embed_tokens.weight": ("U32", [256, 16]),
        "model.embed_tokens.scales": ("BF16", [256, 2]),
        "model.embed_tokens.biases": ("BF16", [256, 2]),
        "model.b.weight": ("U32", [8, 32]),
        "model.b.scales": ("BF16", [8, 2]),
        "model.b.biases": ("BF16", [8, 2]),
        "model.norm.weight": ("BF16", [128]),
    }
    safetensors(folder / "model.safetensors", tensors)
    facts = model_facts(folder)
    assert facts.parameters_count == 256 * 128 + 8 * 128 + 128
    assert facts.quantization == "4-bit"
    assert facts.cache_element_bytes == 2
    assert facts.weights_bytes_by_type[0][0] == "U32"


def test_single_precision_has_larger_caches(folder):
    safetensors(folder / "model.safetensors", {"model.embed_tokens.weight": ("F32", [16, 16])})
    assert model_facts(folder).cache_element_bytes == 4


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        (
            {
                "max_position_embeddings": 4096,
                "rope_scaling": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 4096,
                },
            },
            16384,
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 8192),
        ({"max_position_embeddings": None}, 8192),  # the tokenizer's limit
    ],
)
def test_the_context_is_what_positions_reach_to(folder, changes, tokens):
    change(folder, **changes)
    assert model_facts(folder).train_context_tokens == tokens


def test_a_template_may_lie_in_a_file_of_its_own(folder):
    (folder / "chat_template.jinja").write_text("{{ enable_thinking }}")
    facts = model_facts(folder)
    assert (facts.calls_tools, facts.thinks) == (False, True)


def test_windows_and_shared_caches_are_told_apart(folder):
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    change(folder, model_type="gemma3n", layer_types=kinds, sliding_window=512, num_kv_shared_layers=2)
    facts = model_facts(folder)
    assert [(group.layers_count, group.window_tokens, group.kv_heads) for group in facts.layer_groups] == [
        (1, 512, 2),
        (1, 0, 2),
        (2, 0, 0),
    ]
    assert not facts.rewinds
    assert facts.saves_state
    assert not replace(facts, cache_layout=CacheLayout.LLAMACPP).saves_state


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: change(folder, model_type=None), "names no model type"),
        (lambda folder: change(folder, model_file="evil.py"), "program code"),
        (lambda folder: (folder / "config.json").write_text("{"), "damaged config.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 4), "cut off"),
        (lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60)), "cut off"),
        (lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{]"), "header"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "other.safetensors"), "no weights"),
    ],
)
def test_what_mlx_cannot_load_says_why(folder, damage, message):
    damage(folder)
    with pytest.raises(ModelInvalid, match=message):
        model_facts(folder)


def test_a_file_that_was_cut_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelInvalid, match="cut off"):
        read_header(path)


def test_folders_are_found_and_read_again_when_they_change(folder):
    folders = ModelFolders(engine="mlx", models_folder=folder.parent, stores=NO_STORES, folders=(POCKET,))
    found = {entry.id: entry for entry in folders.scan()}
    assert set(found) == {"pocket-hf", "mine"}
    assert {entry.key for entry in found.values()} == {"mlx/pocket-hf", "mlx/mine"}
    assert found["mine"].path == str(folder)
    assert found["mine"].size_bytes == (folder / "model.safetensors").stat().st_size
    assert folders.scan() == tuple(found.values())
    change(folder, model_file="evil.py")
    changed = {entry.id: entry for entry in folders.scan()}
    assert changed["mine"].facts is None
    assert "program code" in changed["mine"].problem
    assert changed["pocket-hf"] == found["pocket-hf"]
