"""What people type to get a model: every form, and refusals that say how to write it."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given

from autotuned.core.download import Source
from autotuned.core.errors import FieldInvalid
from autotuned.engines.stores.registry_names import registry_name
from autotuned.policy.references import is_same, parsed, reference_of, tagged
from tests.policy.invented import download, model


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("qwen3:8b", "qwen3:8b"),
        ("qwen3", "qwen3"),
        ("  qwen3:8b\n", "qwen3:8b"),
        ("qwen2.5-coder:7b-instruct-q4_K_M", "qwen2.5-coder:7b-instruct-q4_K_M"),
        ("ada/notes:v1", "ada/notes:v1"),
        ("localhost:5000/library/pocket:q8", "localhost:5000/library/pocket:q8"),
        ("http://localhost:5000/library/pocket", "localhost:5000/library/pocket"),
        ("registry.ollama.ai/library/qwen3:8b", "registry.ollama.ai/library/qwen3:8b"),
        ("https://ollama.com/library/qwen3:8b", "qwen3:8b"),
        ("ollama.com/ada/notes", "ada/notes"),
    ],
)
def test_names_of_registries(typed, name):
    reference = parsed(typed)
    assert (reference.source, reference.name, reference.quantization) == (
        Source.OLLAMA_REGISTRY,
        name,
        "",
    )
    assert reference.text == name


@pytest.mark.parametrize(
    ("typed", "name", "quantization"),
    [
        ("hf:Qwen/Qwen3-8B-GGUF", "Qwen/Qwen3-8B-GGUF", ""),
        ("hf:Qwen/Qwen3-8B-GGUF:Q4_K_M", "Qwen/Qwen3-8B-GGUF", "Q4_K_M"),
        ("hf:unsloth/x-GGUF:UD-Q4_K_XL", "unsloth/x-GGUF", "UD-Q4_K_XL"),
        ("hf.co/Qwen/Qwen3-8B-GGUF:Q8_0", "Qwen/Qwen3-8B-GGUF", "Q8_0"),
        ("https://huggingface.co/Qwen/Qwen3-8B-GGUF", "Qwen/Qwen3-8B-GGUF", ""),
        ("https://huggingface.co/Qwen/Qwen3-8B-GGUF/", "Qwen/Qwen3-8B-GGUF", ""),
        ("https://huggingface.co/Qwen/Qwen3-8B-GGUF/tree/main", "Qwen/Qwen3-8B-GGUF", ""),
        ("https://huggingface.co/Qwen/Qwen3-8B-GGUF/blob/main/a.gguf", "Qwen/Qwen3-8B-GGUF", ""),
        ("mlx-community/Qwen3-8B-4bit", "mlx-community/Qwen3-8B-4bit", ""),
        ("hf:a/b:BF16/b-00001-of-00002.gguf", "a/b", "BF16/b-00001-of-00002.gguf"),
    ],
)
def test_repositories_of_hugging_face(typed, name, quantization):
    reference = parsed(typed)
    assert (reference.source, reference.name, reference.quantization) == (
        Source.HUGGING_FACE,
        name,
        quantization,
    )
    assert parsed(reference.text) == reference


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("", 'it is empty; name the model to pull, as in "qwen3:8b".'),
        (" \t", 'it is empty; name the model to pull, as in "qwen3:8b".'),
        ("x" * 301, "it is longer than 300 characters; no model is called so."),
        ("a/b/c/d", '"a/b/c/d" is no name of a model; write it as in "qwen3:8b",'),
        ("qwen3:", '"qwen3:" is no name of a model;'),
        ("../etc/passwd", '"../etc/passwd" is no name of a model;'),
        ("qwen3 8b", '"qwen3 8b" is no name of a model;'),
        ("host:99/a", '"host:99/a" is no name of a model;'),
        ("hf:", '"hf:" names no repository; write it as in "hf:Qwen/Qwen3-8B-GGUF" or'),
        ("hf:qwen3", '"hf:qwen3" names no repository;'),
        ("hf:../..", '"hf:../.." names no repository;'),
        ("hf:a--b/c", '"hf:a--b/c" names no repository;'),
        ("hf:a/b.git", '"hf:a/b.git" names no repository;'),
        ("hf:a/b:?", '"?" is no quantisation; write it as in "hf:a/b:Q4_K_M".'),
    ],
)
def test_what_cannot_be_a_name_is_refused_with_an_example(typed, sentence):
    with pytest.raises(FieldInvalid) as refused:
        parsed(typed)
    assert sentence in str(refused.value)
    assert str(refused.value).endswith(".")


def known(**changes):
    values = {"names": {"ollama": "qwen3:8b", "huggingface": "Qwen/Qwen3-8B-GGUF"}}
    return model("qwen3-8b", **(values | changes))


def test_an_id_of_the_registry_stands_for_where_it_comes_from():
    assert parsed("qwen3-8b", [known()]).name == "qwen3:8b"
    assert parsed("qwen3-8b").name == "qwen3-8b"
    elsewhere = known(names={"huggingface": "Qwen/Qwen3-8B-GGUF"}, sizes=(download(4, of="huggingface"),))
    assert parsed("qwen3-8b", [elsewhere]).text == "hf:Qwen/Qwen3-8B-GGUF"
    assert reference_of(known(names={"mlx": "mlx-community/x"})).text == "hf:mlx-community/x"


@pytest.mark.parametrize(
    ("name", "typed", "expected"),
    [
        ("qwen3", "qwen3:latest", True),
        ("qwen3:8b", "qwen3", False),
        ("qwen3:8b", "registry.ollama.ai/library/qwen3:8b", True),
        ("qwen3:8b", "library/qwen3:8b", True),
        ("qwen3:8b", "ada/qwen3:8b", False),
        ("hf:Qwen/Qwen3-8B-GGUF", "hf:qwen/qwen3-8b-gguf:Q4_K_M", True),
        ("hf:Qwen/Qwen3-8B-GGUF", "Qwen/Qwen3-8B-GGUF", False),
        ("no name at all", "qwen3", False),
    ],
)
def test_which_names_mean_the_same(name, typed, expected):
    assert is_same(name, parsed(typed)) is expected


def test_a_port_is_no_tag():
    assert tagged("localhost:5000/library/x") == "localhost:5000/library/x:latest"
    assert tagged("localhost:5000/library/x:1") == "localhost:5000/library/x:1"


fragments = st.sampled_from(
    ["qwen3", "a", "Z9", "_", "-", ".", "..", "--", "/", "/", ":", ":", "hf:", "hf.co/", "https://",
     "huggingface.co/", "ollama.com/", "library/", "mlx-community/", "5000", "Q4_K_M", " ", "\n", "ä", "%2e",
     "/tree/main", ".git", "\0", "x" * 90]
)  # fmt: skip
typed_texts = st.one_of(st.text(max_size=40), st.lists(fragments, max_size=8).map("".join))


def accepted(text):
    try:
        return parsed(text)
    except FieldInvalid:
        return None


@given(typed_texts)
@example("hf:a/b")
@example("https://ollama.com/https://x")
@example("ollama.com/hf:0")
@example("ollama.com/ollama.com/q")
def test_garbage_is_refused_or_a_name_that_every_store_takes(text):
    """What is accepted here is accepted by the store, and by the library of Hugging Face."""
    reference = accepted(text)
    if reference is None:
        return
    if reference.source is Source.OLLAMA_REGISTRY:
        assert registry_name(reference.name) is not None
    else:
        validate_repo_id(reference.name)
        assert ".." not in reference.name
    assert parsed(reference.text) == reference


@given(typed_texts)
def test_what_a_store_takes_as_a_name_is_accepted(text):
    means_a_page = text.startswith(("hf:", "hf.co/", "huggingface.co/", "mlx-community/", "ollama.com/"))
    if registry_name(text) is not None and len(text) <= 300 and not means_a_page:
        assert parsed(text).source is Source.OLLAMA_REGISTRY


@given(st.lists(st.sampled_from("aZ9_-."), max_size=6).map("".join), st.lists(st.sampled_from("aZ9_-."), max_size=6).map("".join))  # fmt: skip
def test_the_rule_for_repositories_is_that_of_the_library(publisher, repository):
    name = f"{publisher}/{repository}"
    try:
        validate_repo_id(name)
        is_valid = True
    except ValueError:
        is_valid = False
    assert (accepted(f"hf:{name}") is not None) is (is_valid and bool(publisher and repository))
