"""autotunectl ls, and models: what can be run, and where."""

from __future__ import annotations

import json

import pytest
from autotune.v1 import engine_service_pb2, model_pb2, plan_pb2

from autotunectl import model_list
from tests.fakes.fake_messages import engine, fit, listed_model

MODELS = (
    listed_model(
        "damaged",
        size_bytes=1000,
        state=model_pb2.MODEL_STATE_UNSPECIFIED,
        problem="The file ends in the middle of its header; copy it again.",
        fit=None,
        places=[model_pb2.ModelPlace(engine="llamacpp", id="damaged", problem="It is damaged.")],
    ),
    listed_model(
        "pocket",
        size_bytes=2_300_000,
        architecture="llama",
        quantization="Q8_0",
        train_context_tokens=8192,
        state=model_pb2.MODEL_STATE_READY,
        calls_tools=True,
        modalities=["text"],
    ),
    listed_model("qwen3", "ollama", "llamacpp", size_bytes=4 << 30, aliases=["qwen3:8b", "qwen3:latest"]),
    listed_model("large", size_bytes=4 << 30, fit=fit(plan_pb2.FIT_CLASS_SWAP_RISK, safe_context_tokens=0)),
    listed_model("x", "gpu", fit=None, train_context_tokens=131072, thinks=True),
)
TABLE = (
    "MODEL        SIZE  ARCHITECTURE  QUANTIZATION  CONTEXT  SAFE CONTEXT  FIT        STATE     RUNS ON\n"
    "pocket *  2.2 MiB  llama         Q8_0            8,192         8,192  safe       ready     llamacpp\n"
    "qwen3     4.0 GiB  -             -                   -         8,192  safe       absent    ollama, llamacpp\n"
    "large     4.0 GiB  -             -                   -             -  swap risk  absent    llamacpp\n"
    "x               -  -             -             131,072             -  elsewhere  absent    gpu\n"
    "damaged    1000 B  -             -                   -             -  -          unusable  -\n"
    "\n"
    "damaged: The file ends in the middle of its header; copy it again.\n"
)


@pytest.fixture
def three_engines(daemon):
    daemon.models = MODELS
    daemon.engines = [
        engine("llamacpp"),
        engine("ollama"),
        engine("gpu"),
        engine("empty"),
        engine(
            "lmstudio",
            engine_service_pb2.ENGINE_STATE_UNREACHABLE,
            detail="nothing answers at http://127.0.0.1:1234",
        ),
    ]
    return daemon


@pytest.mark.parametrize("verb", ["ls", "models"])
def test_the_sound_models_come_first_and_what_is_wrong_with_the_others_is_said(ctl, three_engines, verb):
    result = ctl(verb)
    assert (result.status, result.err) == (0, "")
    assert result.out == TABLE


def test_verbose_has_other_names_abilities_and_places(ctl, three_engines):
    text = ctl("ls", "--verbose").out
    assert text.startswith(TABLE)
    assert text.removeprefix(TABLE) == (
        "\n"
        "pocket:\n"
        "  reads    text\n"
        "  can      call tools\n"
        "  on       llamacpp: /models/pocket.gguf, absent\n"
        "\n"
        "qwen3:\n"
        "  also     qwen3:8b, qwen3:latest\n"
        "  on       ollama: http://ollama.example, absent\n"
        "  on       llamacpp: /models/qwen3.gguf, absent\n"
        "\n"
        "large:\n"
        "  on       llamacpp: /models/large.gguf, absent\n"
        "\n"
        "x:\n"
        "  can      think\n"
        "  on       gpu: http://gpu.example, absent\n"
        "\n"
        "damaged:\n"
        "  not on   llamacpp: It is damaged.\n"
    )


def test_verbose_says_what_an_engine_calls_a_model():
    place = model_pb2.ModelPlace(engine="ollama", id="x:latest", path="/x", state=model_pb2.MODEL_STATE_READY)
    text = model_list.render([listed_model("x", "ollama", places=[place])], "", verbose=True)
    assert text.endswith("  on       ollama as x:latest: /x, ready\n")


def test_an_engine_that_cannot_run_it_is_not_named():
    broken = model_pb2.ModelPlace(engine="ollama", id="x", problem="It is damaged.")
    sound = model_pb2.ModelPlace(engine="llamacpp", id="x")
    assert model_list.render([listed_model("x", places=[broken, sound])], "").endswith("  llamacpp\n")


@pytest.mark.parametrize("default", ["qwen3", "qwen3:8b", "ollama/qwen3"])
def test_the_default_model_is_marked_under_each_of_its_names(three_engines, ctl, default):
    three_engines.default_model = default
    assert "qwen3 *" in ctl("ls").out


def test_one_engine_shows_its_models_as_it_would_run_them(ctl, three_engines):
    lines = ctl("ls", "--engine", "llamacpp").out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["pocket", "qwen3", "large", "damaged"]
    assert lines[2].endswith("  llamacpp, ollama")
    printed = json.loads(ctl("models", "--engine", "ollama", "--json").out)
    assert [(model["id"], model["engine"]) for model in printed["models"]] == [("qwen3", "ollama")]


def test_an_engine_without_models_says_why(ctl, three_engines):
    result = ctl("ls", "--engine", "empty")
    assert (result.status, result.out, result.err) == (0, "", "empty offers no model.\n")
    assert ctl("ls", "--engine", "lmstudio").err == (
        "lmstudio offers no model: it is unreachable, nothing answers at http://127.0.0.1:1234.\n"
    )
    assert json.loads(ctl("ls", "--engine", "lmstudio", "--json").out)["models"] == []
    three_engines.engines.append(engine("mlx"))
    assert ctl("mlx", "list").err == (
        'mlx offers no model; "autotunectl pull NAME --engine mlx" downloads one.\n'
    )


def test_an_engine_that_there_is_not_is_a_sentence(ctl, three_engines):
    result = ctl("ls", "--engine", "olama")
    assert (result.status, result.out) == (5, "")
    assert result.err == (
        '--engine: there is no engine "olama"; use one of: llamacpp, ollama, gpu, empty, lmstudio.\n'
    )


def test_ls_as_json(ctl, three_engines):
    printed = json.loads(ctl("ls", "--json").out)
    assert printed["default_model"] == "pocket"
    assert [model["id"] for model in printed["models"]] == ["damaged", "pocket", "qwen3", "large", "x"]
    assert printed["models"][1] == {
        "id": "pocket",
        "engine": "llamacpp",
        "path": "/models/pocket.gguf",
        "size_bytes": 2300000,
        "architecture": "llama",
        "quantization": "Q8_0",
        "parameters_count": 0,
        "train_context_tokens": 8192,
        "state": "ready",
        "problem": "",
        "fit": {
            "fit_class": "safe",
            "required_bytes": 34 << 20,
            "available_bytes": 6 << 30,
            "safe_context_tokens": 8192,
        },
        "places": [
            {
                "engine": "llamacpp",
                "id": "pocket",
                "path": "/models/pocket.gguf",
                "state": "absent",
                "problem": "",
            }
        ],
        "aliases": [],
        "modalities": ["text"],
        "calls_tools": True,
        "thinks": False,
    }
    assert printed["models"][4]["fit"] is None
    assert json.loads(ctl("models", "--json").out) == printed


def test_without_models_it_says_how_to_get_one(ctl, daemon):
    daemon.models = []
    assert ctl("ls").err == (
        'There is no model; "autotunectl pull" downloads one, or add a .gguf file to the models folder.\n'
    )
    assert json.loads(ctl("ls", "--json").out) == {"models": [], "default_model": "pocket"}


def test_hostile_names_cannot_steer_the_terminal():
    hostile = model_pb2.Model(id="evil\x1b[2J\nname", problem="a\x07b", aliases=["c\x1b[2J"])
    text = model_list.render([hostile], "x", verbose=True)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "evil[2J name" in text
