"""autotunectl ps: what is in memory, until when, and whether memory is short."""

from __future__ import annotations

import json

from autotune.v1 import model_pb2, plan_pb2

from autotunectl.commands import ps
from autotunectl.output import Style
from tests.fakes.fake_messages import START_TIME, plan_elsewhere, running_model


def test_ps_is_one_line_for_each_model():
    loading = model_pb2.RunningModel(
        id="next", engine="ollama", state=model_pb2.MODEL_STATE_LOADING, queued_requests_count=2
    )
    now = START_TIME.seconds + 7500.0
    assert ps.render([running_model(), loading], now, verbose=False) == (
        "MODEL   ENGINE    STATE    CONTEXT  SLOTS  KV CACHE    MEMORY  PID        AGE   UNTIL  ACTIVE  QUEUED\n"
        "pocket  llamacpp  ready      2,048      1   2.0 MiB  30.0 MiB   77  2 h 5 min  needed       1       0\n"
        "next    ollama    loading        -      -         -         -    -          -       -       0       2\n"
    )


def test_of_what_another_program_loaded_only_what_is_known_is_shown():
    foreign = model_pb2.RunningModel(
        id="qwen3:8b",
        engine="ollama",
        state=model_pb2.MODEL_STATE_READY,
        resident_memory_bytes=5 << 30,
        loaded_by_others=True,
    )
    now = START_TIME.seconds
    text = ps.render([foreign], now, verbose=True)
    assert text == (
        "MODEL     ENGINE  STATE           CONTEXT  SLOTS  KV CACHE   MEMORY  PID  AGE  UNTIL  ACTIVE  QUEUED\n"
        "qwen3:8b  ollama  ready (others)        -      -         -  5.0 GiB    -    -      -       -       -\n"
    )
    foreign.expiry_time.seconds = now + 298
    assert "  4 min 58 s       -       -\n" in ps.render([foreign], now, verbose=False)


def test_what_an_engine_does_not_tell_is_no_number():
    model = running_model("x", "gpu")
    model.shape.CopyFrom(plan_elsewhere().shape)
    model.ClearField("footprint")
    text = ps.render([model], START_TIME.seconds, verbose=True)
    assert "x      gpu     ready        -      -  " in text
    assert text.split("\n\n")[1].startswith(
        "x:\n  cache    chosen by gpu\n  batches  chosen by gpu\n  weights  chosen by gpu\n  why "
    )


def test_ps_verbose_says_why():
    text = ps.render([running_model()], START_TIME.seconds, verbose=True)
    assert text.split("\n\n")[1] == (
        "pocket:\n"
        "  memory   34.2 MiB: 2.2 MiB weights, 2.0 MiB KV cache, 10.0 MiB computation, 20.0 MiB process\n"
        "  cache    Q8_0 keys and F16 values, flash attention\n"
        "  batches  512 tokens, 256 at once\n"
        "  weights  mapped from the file\n"
        "  why      24 prompt tokens + 1,024 for the reply = 1,048 tokens.\n"
        "  why      1,048 snaps up to the bucket 2,048.\n"
    )


def test_ps_says_when_a_model_leaves():
    model = running_model()
    model.expiry_time.seconds = START_TIME.seconds + 298
    text = ps.render([model], START_TIME.seconds, verbose=False)
    assert "4 min 58 s       1       0\n" in text
    assert "0.0 ms       1       0\n" in ps.render([model], START_TIME.seconds + 999, verbose=False)


def test_ps_warns_where_memory_is_short(ctl, daemon):
    daemon.running = [running_model()]
    assert "pressure" not in ctl("ps").out
    daemon.pressure = plan_pb2.PRESSURE_TIER_HIGH
    assert ctl("ps").out.endswith("\nMemory pressure is high: 2.0 GiB of 8.0 GiB used.\n")
    daemon.running = []
    assert ctl("ps").out == "\nMemory pressure is high: 2.0 GiB of 8.0 GiB used.\n"
    assert json.loads(ctl("ps", "--json").out)["pressure_tier"] == "high"


def test_ps_has_bold_titles_in_colour():
    first = ps.render([], 0.0, verbose=False, style=Style(colours=True)).split("\n")[0]
    assert first.startswith("\x1b[1mMODEL")


def test_ps_of_a_running_daemon(ctl, daemon):
    result = ctl("ps")
    assert (result.status, result.out) == (0, "")
    assert result.err == 'No model is in memory; "autotunectl run MODEL" loads one.\n'
    daemon.running = [running_model()]
    assert ctl("ps").out.split("\n")[1].startswith("pocket  llamacpp  ready    2,048")
    assert "snaps up" in ctl("ps", "-v").out
    printed = json.loads(ctl("ps", "--json").out)
    assert printed["daemon_running"] is True
    assert printed["running_models"][0]["shape"]["context_tokens"] == 2048


def test_ps_without_a_daemon_is_empty(ctl, no_daemon):
    result = ctl("ps")
    assert (result.status, result.out) == (0, "")
    assert result.err == 'No daemon is running, so no model is in memory; "autotunectl chat" starts one.\n'
    assert json.loads(ctl("ps", "--json").out) == {
        "daemon_running": False,
        "running_models": [],
        "pressure_tier": None,
    }
