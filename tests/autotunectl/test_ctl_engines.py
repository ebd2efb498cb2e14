"""autotunectl engines: how each stands, what it can do, what it holds."""

from __future__ import annotations

import json

from autotune.v1 import engine_service_pb2, model_pb2
from google.protobuf import timestamp_pb2

from autotunectl.commands import engines
from tests.fakes.fake_messages import START_TIME, engine, running_model

KNOB = engine_service_pb2.Knob
OLLAMA = engine(
    "ollama",
    address="http://127.0.0.1:11434",
    accelerator="CUDA0",
    models_count=12,
    features=["tools", "json-schema", "raw-prompt", "is-local"],
    missing_features=["logprobs", "kv-prefixes", "counts-before-prefill", "of-a-newer-daemon", "has-gpu"],
    missing_sampling=["logit_bias", "min_p"],
    slots_count=4,
    knobs=[
        KNOB(name="context_tokens", scope=engine_service_pb2.KNOB_SCOPE_LOAD),
        KNOB(name="gpu_layers_count", scope=engine_service_pb2.KNOB_SCOPE_LOAD),
        KNOB(name="cache_type", scope=engine_service_pb2.KNOB_SCOPE_SERVER),
        KNOB(name="slots_count", scope=engine_service_pb2.KNOB_SCOPE_SERVER),
        KNOB(name="keep_alive", scope=engine_service_pb2.KNOB_SCOPE_REQUEST),
        KNOB(name="host_prompt_cache", scope=engine_service_pb2.KNOB_SCOPE_NONE),
    ],
    server_settings=[engine_service_pb2.ServerSetting(name="OLLAMA_NUM_PARALLEL", value="4")],
    residents=[
        engine_service_pb2.EngineResident(
            model="qwen3:8b",
            context_tokens=4096,
            memory_bytes=5 << 30,
            accelerator_memory_bytes=4 << 30,
            expiry_time=timestamp_pb2.Timestamp(seconds=START_TIME.seconds + 298),
        ),
        engine_service_pb2.EngineResident(model="x"),
    ],
)
AWAY = engine(
    "lmstudio",
    engine_service_pb2.ENGINE_STATE_UNREACHABLE,
    detail="nothing answers at http://127.0.0.1:1234; start its server.",
)
ABSENT = engine("mlx", engine_service_pb2.ENGINE_STATE_NOT_INSTALLED, detail="it needs a Mac", slots_count=1)
TABLE = (
    "ENGINE    STATE          VERSION  ADDRESS                 COMPUTES ON  MODELS  LOADED\n"
    "llamacpp  ready          b1       -                       -                 1       1\n"
    "ollama    ready          b1       http://127.0.0.1:11434  CUDA0            12       2\n"
    "lmstudio  unreachable    b1       -                       -                 0       0\n"
    "mlx       not installed  b1       -                       -                 0       0\n"
    "\n"
    "lmstudio is unreachable: nothing answers at http://127.0.0.1:1234; start its server.\n"
    "mlx is not installed: it needs a Mac.\n"
)


def test_the_table_says_how_each_stands_and_why_not(ctl, daemon):
    daemon.engines = [engine("llamacpp", models_count=1), OLLAMA, AWAY, ABSENT]
    foreign = model_pb2.RunningModel(
        id="qwen3:8b", engine="ollama", state=model_pb2.MODEL_STATE_READY, loaded_by_others=True
    )
    coming = model_pb2.RunningModel(id="next", engine="ollama", state=model_pb2.MODEL_STATE_LOADING)
    daemon.running = [running_model(), running_model("y", "ollama"), foreign, coming]
    result = ctl("engines")
    assert (result.status, result.err) == (0, "")
    assert result.out == TABLE


def test_engines_that_are_all_ready_are_the_table_alone(ctl, daemon):
    assert ctl("engines").out == (
        "ENGINE    STATE  VERSION  ADDRESS  COMPUTES ON  MODELS  LOADED\n"
        "llamacpp  ready  b1       -        -                 0       0\n"
    )


def test_verbose_says_what_an_engine_can_and_cannot_do():
    text = engines.render([OLLAMA], {}, START_TIME.seconds, verbose=True)
    assert text.split("\n\n")[1] == (
        "ollama:\n"
        "  can      tools, JSON schemas, raw prompt\n"
        "  cannot   log probabilities, saved KV prefixes, token counts before prefill, of a newer daemon\n"
        "  cannot   the sampling options logit_bias, min_p\n"
        "  runs     4 requests of a model at the same time\n"
        "  set      with each request: keep alive\n"
        "  set      at a load: context tokens, GPU layers\n"
        "  set      for the whole server: cache type, slots\n"
        "  set      nowhere: host prompt cache\n"
        "  setting  OLLAMA_NUM_PARALLEL = 4\n"
        "  holds    qwen3:8b, 4,096 tokens of context, 5.0 GiB, 4.0 GiB of it the accelerator's, leaves in 4 min 58 s\n"
        "  holds    x\n"
    )


def test_verbose_of_an_engine_that_is_not_there(ctl, daemon):
    daemon.engines = [ABSENT]
    assert ctl("engines", "-v").out.split("\n\n")[2] == (
        "mlx:\n  can      nothing\n  runs     1 request of a model at the same time\n"
    )


def test_verbose_says_which_engine_is_elsewhere():
    remote = engine("gpu", features=["tools", "has-gpu"], missing_features=["is-local"], slots_count=2)
    assert engines.render([remote], {}, 0.0, verbose=True).split("\n\n")[1] == (
        "gpu:\n  can      tools\n  runs     2 requests of a model at the same time, elsewhere\n"
    )


def test_engines_as_json_are_the_messages(ctl, daemon):
    daemon.engines = [OLLAMA, AWAY]
    printed = json.loads(ctl("engines", "--json").out)["engines"]
    assert [(each["name"], each["state"]) for each in printed] == [
        ("ollama", "ready"),
        ("lmstudio", "unreachable"),
    ]
    assert printed[0]["knobs"][0] == {"name": "context_tokens", "scope": "load"}
    assert printed[0]["residents"][1] == {
        "model": "x",
        "context_tokens": 0,
        "memory_bytes": 0,
        "accelerator_memory_bytes": 0,
        "expiry_time": None,
    }
    assert printed[1]["detail"] == AWAY.detail


def test_hostile_names_cannot_steer_the_terminal():
    hostile = engine("evil\x1b[2J", engine_service_pb2.ENGINE_STATE_UNREACHABLE, detail="a\x07\nb")
    hostile.features.append("\x1b[2J")
    text = engines.render([hostile], {}, 0.0, verbose=True)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "evil[2J is unreachable: a b.\n" in text
