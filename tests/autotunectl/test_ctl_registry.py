"""autotunectl models --registry: what there is to download."""

from __future__ import annotations

import json

from autotune.registry import RegistryList
from autotune.v1 import registry_service_pb2

from autotunectl.registry_list import layers_text, render
from tests.fakes.download_messages import registry_model

MODELS = (
    registry_model(),
    registry_model(
        "gpt-oss-20b",
        parameters_count=20_900_000_000,
        active_parameters_count=3_600_000_000,
        names={"ollama": "gpt-oss:20b"},
        train_context_tokens=131072,
        overall_score=0.4,
    ),
    registry_service_pb2.RegistryModel(id="tiny", parameters_count=494_000_000, is_own=True, notes="Mine."),
)
TABLE = (
    "MODEL          PARAMETERS     SIZE  SCORE  LICENSE\n"
    "qwen3-8b             8.2B  5.0 GiB     41  Apache-2.0\n"
    "gpt-oss-20b  20.9B (3.6B)  5.0 GiB      0  Apache-2.0\n"
    "tiny                 494M        -      -  -\n"
)


def test_the_registry_is_a_table(ctl, daemon):
    daemon.registry = MODELS
    result = ctl("models", "--registry")
    assert (result.status, result.out, result.err) == (0, TABLE, "")


def test_a_line_is_no_wider_than_a_terminal(ctl, daemon):
    long = "MIT and Llama 3.3 Community License Agreement"
    name = "qwen3-next-80b-a3b-thinking"
    daemon.registry = [
        registry_model(
            name,
            license=long,
            parameters_count=235_000_000_000,
            active_parameters_count=22_000_000_000,
            notes="word " * 30,
        )
    ]
    table = ctl("models", "--registry").out
    assert table.splitlines()[1] == f"{name}  235B (22.0B)  5.0 GiB     41  MIT and Llama 3.3…"
    details = ctl("models", "--registry", "-v").out
    assert f"  license  {long}\n" in details
    assert max(map(len, details.splitlines())) <= 80


def test_all_pages_are_walked(ctl, daemon):
    daemon.registry = [registry_model(f"m{number}") for number in range(5)]
    daemon.page_limit = 2
    printed = json.loads(ctl("models", "--registry", "--json").out)
    assert [model["id"] for model in printed["models"]] == ["m0", "m1", "m2", "m3", "m4"]
    assert printed["own_file"] == "/config/registry.toml"
    assert printed["models"][0]["ranks"] == {"coding": {"place": 7, "models_count": 30}}
    assert printed["models"][0]["names"] == {"huggingface": "Qwen/Qwen3-8B-GGUF", "ollama": "qwen3:8b"}


def test_what_is_wrong_with_the_own_file_is_said(ctl, daemon):
    daemon.registry_problems = ["mine: it has no license; add one."]
    assert ctl("models", "--registry").out.endswith(
        "\nYour own file of models has mistakes:\n  mine: it has no license; add one.\n"
    )
    assert json.loads(ctl("models", "--registry", "--json").out)["problems"] == daemon.registry_problems


def test_verbose_has_names_sizes_layers_and_sources(ctl, daemon):
    daemon.registry = [MODELS[0], MODELS[2]]
    text = ctl("models", "--registry", "-v").out
    assert text[text.index("\n\n") + 1 :] == (
        "\n"
        "qwen3-8b:\n"
        "  is       Qwen3 8B of Qwen, 2025-04\n"
        "  license  Apache-2.0\n"
        "  context  40,960 tokens in training\n"
        "  reads    text\n"
        "  can      call tools, think\n"
        "  name     qwen3:8b (ollama)\n"
        "  name     hf:Qwen/Qwen3-8B-GGUF (huggingface)\n"
        "  size     5.0 GiB as Q4_K_M (ollama)\n"
        "  layers   36: 36 with 8 KV heads of 128 + 128\n"
        "  rank     7 of 30 in coding\n"
        "  source   layers: https://example.org/config.json\n"
        "  source   sizes: https://example.org/tags\n"
        "\n"
        "tiny:\n"
        "  is       tiny of an unknown maker\n"
        "  from     your own file\n"
        "  note     Mine.\n"
        "\n"
        "Models of your own go into /config/registry.toml.\n"
    )


def test_layers_of_each_kind_are_told():
    kind = registry_service_pb2.RegistryLayers
    groups = [
        kind(layers_count=8, kv_heads_count=2, key_length=256, value_length=128, window_tokens=1024),
        kind(layers_count=24, recurrent_elements_count=524288),
        kind(layers_count=2),
    ]
    assert layers_text(34, groups) == (
        "34: 8 with 2 KV heads of 256 + 128 and a window of 1,024 tokens; "
        "24 with 524,288 numbers of recurrent state; 2 with no cache of their own"
    )


def test_the_registry_has_no_engines(ctl, daemon):
    result = ctl("models", "--registry", "--engine", "ollama")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("--registry and --engine exclude each other; ")
    assert not daemon.requests


def test_hostile_texts_cannot_steer_the_terminal():
    hostile = registry_model("a\x1b[2J", license="\x07", notes="n\x1b[2J", names={"x\x1b": "y\x07"})
    text = render(RegistryList([hostile], ["p\x1b[2J"], "/f\x07"), verbose=True)
    assert not {"\x1b", "\x07"} & set(text)
