"""What the LM Studio adapter makes of lists, and how it finds the files behind them."""

import json
import shutil
from dataclasses import replace

import pytest

from autotuned.engines.gguf import read_header
from autotuned.engines.gguf_facts.facts import model_facts
from autotuned.engines.llamacpp.discovery import POCKET
from autotuned.engines.lmstudio.facts import entry_of
from autotuned.engines.lmstudio.gguf_files import GgufFiles
from autotuned.engines.lmstudio.listing import Api, ListedModel, read_v0, read_v1
from tests.engines.lmstudio_case import opened
from tests.fakes.lmstudio.start import running_lmstudio

SIZE = POCKET.stat().st_size
URL = "http://127.0.0.1:1234"

LISTED = ListedModel(
    key="pocket",
    publisher="autotune",
    name="Pocket",
    architecture="llama",
    quantization="Q8_0",
    size_bytes=SIZE,
    context_tokens=8192,
    is_gguf=True,
    sees=False,
    calls_tools=True,
    thinks=False,
)
# As the documentation of the second API shows it.
GEMMA = {
    "type": "llm",
    "publisher": "google",
    "key": "google/gemma-4-26b-a4b",
    "display_name": "Gemma 4 26B A4B",
    "architecture": "gemma4",
    "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
    "size_bytes": 17990911801,
    "params_string": "26B-A4B",
    "loaded_instances": [
        {
            "id": "google/gemma-4-26b-a4b",
            "config": {
                "context_length": 4096,
                "eval_batch_size": 512,
                "parallel": 4,
                "flash_attention": True,
                "num_experts": 8,
                "offload_kv_cache_to_gpu": True,
            },
        }
    ],
    "max_context_length": 262144,
    "format": "gguf",
    "capabilities": {
        "vision": True,
        "trained_for_tool_use": True,
        "reasoning": {"allowed_options": ["off", "on"], "default": "on"},
    },
    "description": None,
}
NOMIC = {
    "type": "embedding",
    "key": "nomic",
    "size_bytes": 1,
    "loaded_instances": [],
    "max_context_length": 2048,
}


def listed(*models):
    return read_v1(json.dumps({"models": models}).encode())


# Lists.


def test_a_list_is_read_without_embedding_models():
    listing = listed(GEMMA, NOMIC)
    assert listing.api is Api.V1
    [model] = listing.models.values()
    assert (model.key, model.sees, model.calls_tools, model.thinks) == (GEMMA["key"], True, True, True)
    [instance] = model.instances
    assert (instance.context_tokens, instance.slots_count, instance.batch_tokens) == (4096, 4, 512)
    assert instance.flash_attention is True


def test_an_entry_that_cannot_be_read_hides_itself_alone():
    assert list(listed({"key": 7}, GEMMA, "what", {**GEMMA, "key": "x", "size_bytes": "many"}).models) == [
        GEMMA["key"]
    ]


def test_a_model_that_tells_little_is_read():
    [model] = listed({"key": "x", "quantization": None, "format": None}).models.values()
    assert (model.name, model.quantization, model.size_bytes, model.context_tokens) == ("x", "", -1, 0)
    assert not model.is_gguf


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error": "Unexpected endpoint or method."}', b"\xff"])
def test_another_answer_is_no_list(body):
    assert read_v1(body) is None
    assert read_v0(body) is None


def test_the_list_of_an_old_server_joins_instances():
    common = {"object": "model", "publisher": "a", "arch": "llama", "compatibility_type": "gguf"}
    data = [
        {"id": "one", "type": "vlm", "state": "loaded", "loaded_context_length": 4096, **common},
        {"id": "one:2", "type": "vlm", "state": "loaded", "loaded_context_length": 2048, **common},
        {"id": "odd:2", "type": "llm", "state": "not-loaded", "capabilities": ["tool_use"], **common},
        {"id": "vectors", "type": "embeddings", "state": "loaded", **common},
    ]
    listing = read_v0(json.dumps({"data": data}).encode())
    assert list(listing.models) == ["one", "odd:2"]
    assert [each.context_tokens for each in listing.instances_of("one")] == [4096, 2048]
    assert listing.models["one"].sees
    assert listing.models["odd:2"].calls_tools
    assert listing.instances_of("odd:2") == listing.instances_of("none") == ()


# Files.


@pytest.fixture
def store(tmp_path):
    """``put(path)`` puts the pocket model into the folder."""

    def put(path):
        to = tmp_path / path
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(POCKET, to)
        return to

    return put


def found(tmp_path, model=LISTED):
    return GgufFiles(tmp_path).find([model]).get(model.key)


def test_a_file_of_that_size_and_name_is_the_model(store, tmp_path):
    store("autotune/pocket-GGUF/pocket-Q8_0.gguf")
    facts = found(tmp_path)
    assert (facts.layers_count, facts.train_context_tokens) == (4, 8192)
    assert found(tmp_path, replace(LISTED, publisher="else")) == facts
    assert found(tmp_path, replace(LISTED, key="hub/other")) == facts


@pytest.mark.parametrize(
    "changes",
    [{"size_bytes": SIZE + 1}, {"publisher": "else", "key": "other"}, {"is_gguf": False}],
    ids=["another size", "another name", "another format"],
)
def test_another_file_is_not(store, tmp_path, changes):
    store("autotune/pocket-GGUF/pocket-Q8_0.gguf")
    assert found(tmp_path, replace(LISTED, **changes)) is None


def test_without_a_size_everything_else_has_to_agree(store, tmp_path):
    store("autotune/pocket-GGUF/pocket-Q8_0.gguf")
    told = replace(LISTED, size_bytes=-1)
    assert found(tmp_path, told) is not None
    for changes in ({"publisher": "else"}, {"key": "other"}, {"quantization": "Q4_0"}, {"quantization": ""}):
        assert found(tmp_path, replace(told, **changes)) is None


def test_copies_are_one_model_and_others_are_none(store, tmp_path):
    store("autotune/pocket-GGUF/pocket-Q8_0.gguf")
    copy = store("autotune/pocket-again-GGUF/pocket-Q8_0.gguf")
    assert found(tmp_path) is not None
    content = bytearray(copy.read_bytes())
    content[content.index(b"general.name") + 30] ^= 1
    copy.write_bytes(content)
    assert found(tmp_path) is None


def test_a_projector_beside_it_may_count(store, tmp_path):
    store("autotune/pocket-GGUF/pocket-Q8_0.gguf")
    (tmp_path / "autotune/pocket-GGUF/mmproj-F16.gguf").write_bytes(b"x" * 100)
    assert found(tmp_path) is not None
    assert found(tmp_path, replace(LISTED, size_bytes=SIZE + 100)) is not None
    assert found(tmp_path, replace(LISTED, size_bytes=100)) is None


def test_a_damaged_or_partial_file_is_none(store, tmp_path):
    path = store("autotune/pocket-GGUF/pocket-Q8_0.gguf")
    path.write_bytes(b"GGUF" + bytes(SIZE - 4))
    assert found(tmp_path) is None
    path.rename(path.with_name("pocket-00001-of-00002.gguf"))
    assert found(tmp_path) is None
    assert GgufFiles(None).find([LISTED]) == {}


# Entries.


def test_without_a_file_the_server_is_believed_and_the_rest_is_nothing():
    entry = entry_of(LISTED, None, url=URL, is_here=True)
    facts = entry.facts
    assert (entry.key, entry.path, entry.size_bytes) == ("lmstudio/pocket", URL, SIZE)
    assert (facts.layers_count, facts.layer_groups, facts.train_context_tokens) == (0, (), 8192)
    assert facts.weights_bytes == SIZE
    assert facts.digest.startswith("lmstudio:")
    other = entry_of(replace(LISTED, quantization="Q4_0"), None, url=URL, is_here=True)
    assert other.facts.digest != facts.digest
    assert entry_of(LISTED, None, url="http://far", is_here=False).facts.digest == "remote:http://far:pocket"


def test_with_a_file_its_facts_count_and_lm_studio_adds_its_own(store, tmp_path):
    store("autotune/pocket-GGUF/pocket-Q8_0.gguf")
    model = replace(LISTED, sees=True, thinks=True, context_tokens=4096)
    facts = entry_of(model, found(tmp_path), url=URL, is_here=True).facts
    assert facts.modalities == ("text", "image")
    assert facts.thinks
    assert facts.train_context_tokens == 4096
    assert facts.layers_count == 4


async def test_the_double_lists_what_its_files_say():
    async with running_lmstudio(models=("pocket", "second")) as double, opened(double) as engine:
        entries = {entry.id: entry for entry in await engine.models()}
        assert set(entries) == {"pocket", "second"}
        assert len({entry.facts.digest for entry in entries.values()}) == 1
        assert entries["pocket"].facts.layers_count == 4
        # Another engine that reads the file has the same model in its list.
        assert entries["pocket"].facts.digest == model_facts((read_header(POCKET),), POCKET).digest
