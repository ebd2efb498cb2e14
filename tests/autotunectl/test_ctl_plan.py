"""autotunectl plan: the whole decision on one screen, and what is asked for it."""

from __future__ import annotations

import json

import grpc
import pytest
from autotune.v1 import inference_service_pb2, model_pb2, model_service_pb2, plan_pb2

from autotunectl import plans, shapes
from autotunectl.commands import plan as plan_command
from tests.fakes.fake_messages import (
    fit,
    footprint,
    listed_model,
    plan_elsewhere,
    rich_status,
    running_model,
)
from tests.fakes.fake_messages import plan as some_plan

SCREEN_LINES = 24
WHY = (
    "Why       24 prompt tokens + 1,024 for the reply = 1,048 tokens.\n"
    "          1,048 snaps up to the bucket 2,048.\n"
)


def test_the_decision_is_one_screen(ctl, daemon):
    result = ctl("plan", "pocket")
    assert (result.status, result.err) == (0, "")
    assert result.out == (
        "pocket would be loaded with a context of 2,048 tokens.\n"
        "\n"
        "Engine    llamacpp\n"
        "Context   2,048 tokens in each of 1 slot\n"
        "Cache     Q8_0 keys and F16 values, flash attention\n"
        "Batches   512 tokens, 256 at once\n"
        "Weights   mapped from the file\n"
        "Fit       safe: it takes 34.0 MiB, 6.0 GiB can be had; up to 8,192 tokens of context are safe with this KV cache\n"
        "Given up  nothing\n"
        "Evicts    nothing\n"
        "Pressure  normal\n" + WHY + "\n"
        "MEMORY                     NOW     AFTER\n"
        "weights                      -   2.2 MiB\n"
        "repacked weights             -       0 B\n"
        "KV cache                     -   2.0 MiB\n"
        "computation                  -  10.0 MiB\n"
        "process                      -  20.0 MiB\n"
        "in all                       -  34.2 MiB\n"
        "prompt cache, at most        -   1.0 MiB\n"
        "available              6.0 GiB   6.0 GiB\n"
    )
    assert result.out.count("\n") <= SCREEN_LINES


def test_a_loaded_model_is_shown_before_and_after(ctl, daemon):
    daemon.running = [running_model()]
    daemon.plan.action = plan_pb2.PLAN_ACTION_GROW
    daemon.plan.shape.context_tokens = 4096
    daemon.plan.footprint.kv_cache_bytes = 4 << 20
    text = ctl("plan", "pocket").out
    assert text.startswith(
        "pocket would be loaded again: its context would grow from 2,048 to 4,096 tokens.\n"
    )
    assert "KV cache                2.0 MiB   4.0 MiB\n" in text


def test_what_is_given_up_and_who_leaves_is_said():
    plan = some_plan()
    plan.reduction_level = 3
    plan.evicted_models.extend(["first", "second"])
    plan.pressure_tier = plan_pb2.PRESSURE_TIER_CRITICAL
    plan.fit.CopyFrom(fit(plan_pb2.FIT_CLASS_OOM, 0))
    text = plan_command.render(model_service_pb2.PlanModelResponse(plan=plan), None)
    assert "Given up  half of the context, and a Q8_0 KV cache\n" in text
    assert "Evicts    first, second\n" in text
    assert "Pressure  critical\n" in text
    assert "no context of this model is safe here, a smaller model or quantization may be\n" in text


@pytest.mark.parametrize(
    ("action", "headline"),
    [
        (plan_pb2.PLAN_ACTION_REUSE, "m would answer as it is loaded, with a context of 2,048 tokens."),
        (
            plan_pb2.PLAN_ACTION_SHRINK,
            "m would be loaded again in a smaller shape, with a context of 2,048 tokens.",
        ),
        (99, "m would be loaded with a context of 2,048 tokens."),
    ],
)
def test_each_action_has_its_headline(action, headline):
    plan = some_plan()
    plan.action = action
    plan.ClearField("fit")
    response = model_service_pb2.PlanModelResponse(model=model_pb2.Model(id="m"), plan=plan)
    text = plan_command.render(response, footprint())
    assert text.split("\n")[0] == headline
    assert "Fit       the loaded shape is kept\n" in text


def test_a_plan_for_a_model_elsewhere_shows_no_memory(ctl, daemon):
    daemon.models = [listed_model("x", "gpu", fit=None)]
    daemon.plan = plan_elsewhere()
    assert ctl("plan", "x").out == (
        "x would answer on gpu, with a context chosen by gpu.\n"
        "\n"
        "Engine   gpu\n"
        "Context  chosen by gpu\n"
        "Cache    chosen by gpu\n"
        "Batches  chosen by gpu\n"
        "Weights  chosen by gpu\n"
        "Why      It runs at http://gpu.example, which decides its shape: no memory is taken here.\n"
    )
    daemon.plan.shape.context_tokens = 131072
    daemon.plan.shape.assumed.remove("context_tokens")
    text = ctl("plan", "x").out
    assert text.startswith("x would answer on gpu, with a context of 131,072 tokens.\n")
    assert "\nContext  131,072 tokens, slots chosen by gpu\n" in text


def test_what_an_engine_decides_itself_is_no_fact(ctl, daemon):
    daemon.models = [listed_model("x", "ollama")]
    daemon.plan.shape.assumed.extend(
        ["flash_attention", "batch_tokens", "micro_batch_tokens", "memory_mapped", "gpu_layers_count"]
    )
    text = ctl("plan", "x").out
    assert "\nCache     Q8_0 keys and F16 values, flash attention chosen by ollama\n" in text
    assert "\nBatches   chosen by ollama\n" in text
    assert "\nWeights   chosen by ollama\n" in text
    assert "\nMEMORY " in text


def test_the_options_reach_the_request(ctl, daemon):
    options = "--prompt-tokens 5000 -p quality --context 4096 --reply 7 --no-swap --engine llamacpp"
    assert ctl("plan", "pocket", *options.split()).status == 0
    assert daemon.requests[-1] == model_service_pb2.PlanModelRequest(
        model="pocket",
        prompt_tokens=5000,
        profile=inference_service_pb2.PROFILE_QUALITY,
        context_tokens=4096,
        max_reply_tokens=7,
        swap_policy=inference_service_pb2.SWAP_POLICY_NEVER,
        engine="llamacpp",
    )


def test_a_prompt_comes_from_a_file(ctl, daemon, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("How long am I?")
    assert ctl("plan", "pocket", "--file", str(path)).status == 0
    assert daemon.requests[-1].chat.messages[0].parts[0].text == "How long am I?"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "The file is empty; leave --file out for a prompt that is not known yet.\n"),
        (b"abc\xff", "{path} is not valid UTF-8 at byte 3; convert it, perhaps with iconv.\n"),
    ],
)
def test_a_file_that_is_no_prompt_is_refused(ctl, daemon, tmp_path, content, sentence):
    path = tmp_path / "prompt.txt"
    path.write_bytes(content)
    result = ctl("plan", "pocket", "--file", str(path))
    assert (result.status, result.err) == (5, sentence.format(path=path))


def test_a_file_that_is_not_there_is_wrong_usage(ctl, daemon):
    result = ctl("plan", "pocket", "--file", "/nowhere/prompt.txt")
    assert result.status == 2
    assert "No such file or directory" in result.err


def test_a_plan_as_json(ctl, daemon):
    printed = json.loads(ctl("plan", "pocket", "--json").out)
    assert printed["model"]["id"] == "pocket"
    assert printed["plan"]["fit"]["fit_class"] == "safe"
    assert (printed["loaded_shape"], printed["loaded_footprint"]) == (None, None)
    daemon.running = [running_model()]
    printed = json.loads(ctl("plan", "pocket", "--json").out)
    assert printed["loaded_shape"]["context_tokens"] == 2048
    assert printed["loaded_footprint"]["total_bytes"] == footprint().total_bytes


def test_what_cannot_fit_is_a_sentence_and_its_status(ctl, daemon):
    daemon.refusal = rich_status(grpc.StatusCode.FAILED_PRECONDITION, "WOULD_SWAP", "It needs 9 GiB.")
    result = ctl("plan", "pocket", "--no-swap")
    assert (result.status, result.out, result.err) == (5, "", "It needs 9 GiB.\n")


def test_slots_that_share_their_cache_are_told_apart_from_those_that_do_not():
    shape = plan_pb2.LoadShape(context_tokens=8192, slots_count=4)
    assert shapes.context_text(shape, "llamacpp") == "8,192 tokens in each of 4 slots"
    shape.kv_unified = True
    assert shapes.context_text(shape, "llamacpp") == "8,192 tokens shared by 4 slots"


def test_a_level_of_a_newer_daemon_is_its_number():
    assert plans.given_up_text(0) == "nothing"
    assert plans.given_up_text(9) == "level 9"
