"""Models of the registry that are here already, known again by the name that they were pulled by."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core.model import ModelEntry
from autotuned.policy.catalogue import joined
from autotuned.policy.installed import installed_names, known_model
from tests.examples import QWEN3_8B
from tests.policy.invented import download, model

HUB = "/var/cache/huggingface/hub"
GGUF = f"{HUB}/models--Qwen--Qwen3-8B-GGUF/snapshots/1a2b/Qwen3-8B-Q4_K_M.gguf"
QWEN = model(
    "qwen3-8b",
    names={
        "ollama": "qwen3:8b",
        "huggingface": "Qwen/Qwen3-8B-GGUF",
        "mlx": "mlx-community/Qwen3-8B-4bit",
    },
    sizes=(
        download(5),
        download(5, of="huggingface"),
        download(9, of="huggingface", quantization="Q8_0"),
        download(4.5, of="mlx", quantization="4bit"),
    ),
)


def entry(model_id="local", engine="llamacpp", path="", facts=QWEN3_8B):
    return ModelEntry(id=model_id, engine=engine, path=path, size_bytes=1, facts=facts)


def installed(*entries):
    return installed_names([QWEN], joined(entries))


def test_a_name_of_ollamas_is_its_id():
    assert installed(entry("qwen3:8b", "ollama")) == {"qwen3:8b": "qwen3:8b"}


def test_ollamas_latest_needs_no_tag():
    latest = replace(QWEN, names={"ollama": "qwen3"}, sizes=(download(5),))
    found = installed_names([latest], joined([entry("qwen3:latest", "ollama")]))
    assert found == {"qwen3": "qwen3:latest"}


def test_another_tag_is_another_model():
    assert installed(entry("qwen3:8b-q8_0", "ollama"), entry("qwen3:latest", "ollama")) == {}


def test_a_file_of_a_repository_is_told_by_the_facts_of_its_quantization():
    path = GGUF.replace("Qwen3-8B-Q4_K_M.gguf", "model.gguf")
    assert installed(entry("model", path=path)) == {"hf:Qwen/Qwen3-8B-GGUF:Q4_K_M": "model"}


def test_a_file_of_a_repository_is_told_by_its_name():
    """What its tensors are mostly of is not always what it is called."""
    other = replace(QWEN3_8B, quantization="Q6_K")
    assert installed(entry("model", path=GGUF, facts=other)) == {"hf:Qwen/Qwen3-8B-GGUF:Q4_K_M": "model"}
    assert installed(entry("model", path=GGUF, facts=None)) == {"hf:Qwen/Qwen3-8B-GGUF:Q4_K_M": "model"}


@pytest.mark.parametrize("name", ["Qwen3-8B-IQ8_0.gguf", "Qwen3-8B-Q8_0_L.gguf", "Qwen3-8B.gguf"])
def test_what_is_called_otherwise_is_not_here(name):
    path = GGUF.replace("Qwen3-8B-Q4_K_M.gguf", name)
    assert installed(entry("model", path=path, facts=None)) == {}


def test_a_repository_of_another_name_is_not_it():
    path = GGUF.replace("Qwen3-8B-GGUF", "Qwen3-8B-GGUF-v2")
    assert installed(entry("model", path=path)) == {}


def test_a_repository_of_mlx_has_one_quantization():
    path = f"{HUB}/models--mlx-community--Qwen3-8B-4bit/snapshots/9f/"
    facts = replace(QWEN3_8B, quantization="4-bit")
    found = installed(entry("mlx-community/Qwen3-8B-4bit", "mlx", path, facts))
    assert found == {"hf:mlx-community/Qwen3-8B-4bit": "mlx-community/Qwen3-8B-4bit"}


def test_an_alias_leads_to_the_model_that_it_is_listed_as():
    found = installed(entry("my-qwen"), entry("qwen3:8b", "ollama"))
    assert found == {"qwen3:8b": "my-qwen"}


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (entry("qwen3:8b", "ollama"), QWEN),
        (entry(path=GGUF), QWEN),
        (entry(path=f"{HUB}/models--mlx-community--Qwen3-8B-4bit/snapshots/9f/"), QWEN),
        (entry("qwen3:4b", "ollama"), None),
        (entry(path="/models/Qwen3-8B-Q4_K_M.gguf"), None),
    ],
)
def test_which_model_of_the_registry_an_installed_one_is(each, expected):
    other = model("other", names={"ollama": "other"})
    assert known_model(each, [other, QWEN]) is expected


def test_a_model_is_known_by_a_place_of_which_no_size_is_known():
    unsized = replace(QWEN, sizes=(download(5),))
    assert known_model(entry(path=GGUF), [unsized]) is unsized
