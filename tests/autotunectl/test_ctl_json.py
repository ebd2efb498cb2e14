"""The JSON of wire messages: names, units, absence."""

from __future__ import annotations

import json

import pytest
from autotune.v1 import inference_service_pb2, model_pb2, model_service_pb2, plan_pb2, registry_service_pb2

from autotunectl.json_output import dump, enum_text, event_json, message_json
from tests.fakes.fake_messages import running_model


def test_a_running_model():
    assert message_json(running_model()) == {
        "id": "pocket",
        "engine": "llamacpp",
        "state": "ready",
        "shape": {
            "context_tokens": 2048,
            "slots_count": 1,
            "key_cache_type": "q8_0",
            "value_cache_type": "f16",
            "batch_tokens": 512,
            "micro_batch_tokens": 256,
            "flash_attention": True,
            "gpu_layers_count": 0,
            "kv_unified": False,
            "host_prompt_cache_bytes": 0,
            "memory_mapped": True,
            "assumed": [],
        },
        "kv_cache_bytes": 2097152,
        "weights_bytes": 2300000,
        "resident_memory_bytes": 31457280,
        "process_id": 77,
        "load_time": "2023-11-14T22:13:20Z",
        "last_use_time": None,
        "active_requests_count": 1,
        "queued_requests_count": 0,
        "load_seconds": 0.42,
        "reasons": [
            {"code": "needs", "text": "24 prompt tokens + 1,024 for the reply = 1,048 tokens."},
            {"code": "bucket", "text": "1,048 snaps up to the bucket 2,048."},
        ],
        "incarnation_id": "i1",
        "footprint": {
            "weights_bytes": 2300000,
            "repacked_weights_bytes": 0,
            "kv_cache_bytes": 2 << 20,
            "compute_bytes": 10 << 20,
            "process_bytes": 20 << 20,
            "host_prompt_cache_bytes": 1 << 20,
            "total_bytes": 2300000 + (33 << 20),
        },
        "expiry_time": None,
        "loaded_by_others": False,
    }


def test_of_a_oneof_only_the_member_that_is_set_is_there():
    progress = model_pb2.LoadProgress(phase=model_pb2.LOAD_PHASE_STARTING)
    response = model_service_pb2.LoadModelResponse(progress=progress)
    assert message_json(response) == {"progress": {"phase": "starting", "elapsed_seconds": None}}


def test_an_optional_field_is_null_when_absent_and_zero_when_zero():
    absent = message_json(model_service_pb2.LoadModelRequest(model="pocket"))
    zero = message_json(model_service_pb2.LoadModelRequest(model="pocket", context_tokens=0))
    assert (absent["context_tokens"], zero["context_tokens"]) == (None, 0)


def test_bytes_are_base64():
    logprob = inference_service_pb2.TokenLogprob(token_bytes=b"\xc3\xa9", logprob=-0.5)
    assert message_json(logprob) == {"token": "", "token_bytes": "w6k=", "logprob": -0.5, "alternatives": []}


def test_a_value_of_a_newer_daemon_is_its_number():
    assert (
        enum_text(plan_pb2.LoadShape(key_cache_type=plan_pb2.KV_CACHE_TYPE_Q8_0), "key_cache_type") == "q8_0"
    )
    assert enum_text(model_pb2.Model(state=99), "state") == "99"


def test_a_dump_is_one_line_of_strict_json():
    assert dump({"text": "é\n", "n": 1.5}) == '{"text": "é\\n", "n": 1.5}'
    assert json.loads(dump({"text": "\u2028"})) == {"text": "\u2028"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump(float("nan"))


def test_a_map_is_an_object_whose_keys_are_in_order():
    model = registry_service_pb2.RegistryModel(
        names={"ollama": "qwen3:8b", "huggingface": "Qwen/Qwen3-8B-GGUF"},
        ranks={"coding": registry_service_pb2.RegistryRank(place=7, models_count=30)},
    )
    printed = message_json(model)
    assert list(printed["names"].items()) == [("huggingface", "Qwen/Qwen3-8B-GGUF"), ("ollama", "qwen3:8b")]
    assert printed["ranks"] == {"coding": {"place": 7, "models_count": 30}}
    assert printed["sources"] == {}


def test_an_event_says_which_it_is():
    pulled = model_service_pb2.PulledModel(fetched_bytes=7)
    printed = event_json(model_service_pb2.PullModelResponse(pulled=pulled))
    assert (printed["event"], printed["fetched_bytes"], printed["model"]) == ("pulled", 7, None)
    assert event_json(model_service_pb2.PullModelResponse()) == {}
