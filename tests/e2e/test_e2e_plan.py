"""What a plan says is what happens; a prewarm is what the next request finds; a model leaves when it was told."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import autotune
import pytest
from autotune.requests import load_model_request
from autotune.v1 import plan_pb2

from tests.e2e.conftest import PATIENCE_SECONDS

SYSTEM = "You are a careful assistant. " * 60
DOCUMENT = "The lighthouse keeper wrote down the wind. " * 90


def loaded_by(client: autotune.Client, **options):
    return list(client.load_model(load_model_request("pocket", **options)))[-1].loaded


@pytest.fixture
def client(own_daemon):
    with autotune.Client(own_daemon.address) as connected:
        yield connected


@pytest.fixture
def ctl(own_daemon):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "autotunectl", *arguments],
            env=own_daemon.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    return run


def test_a_plan_loads_nothing_and_the_load_keeps_to_it(client):
    planned = client.plan_model("pocket", profile="fast", context_tokens=3000)
    assert client.list_running_models() == []
    assert planned.plan.action == plan_pb2.PLAN_ACTION_LOAD
    assert not planned.HasField("loaded_shape")
    loaded = loaded_by(client, profile="fast", context_tokens=3000)
    sizes = ("context_tokens", "slots_count", "key_cache_type", "value_cache_type", "batch_tokens")
    for size in sizes:
        assert getattr(planned.plan.shape, size) == getattr(loaded.running_model.shape, size)
    assert loaded.plan.kv_cache_bytes == planned.plan.kv_cache_bytes
    again = client.plan_model("pocket", profile="fast")
    assert again.plan.action == plan_pb2.PLAN_ACTION_REUSE
    assert again.loaded_shape == loaded.running_model.shape
    assert not again.plan.HasField("fit")


def test_a_counted_prompt_is_planned_to_the_token(client):
    loaded_by(client)
    with pytest.raises(autotune.ContextTooLong) as caught:
        client.plan_model("pocket", prompt=9000)
    assert caught.value.metadata == {"promptTokens": "9000", "contextTokens": "8192"}
    grown = client.plan_model("pocket", prompt=3000, max_reply_tokens=100).plan
    assert grown.action == plan_pb2.PLAN_ACTION_GROW
    assert grown.shape.context_tokens >= 3100
    assert "3,000 prompt tokens" in grown.reasons[0].text


def test_every_model_that_can_be_used_tells_how_it_would_fit(client):
    (model,) = client.list_models().models
    assert model.fit.fit_class == plan_pb2.FIT_CLASS_SAFE
    assert 0 < model.fit.required_bytes < model.fit.available_bytes
    assert model.fit.safe_context_tokens == model.train_context_tokens
    assert client.get_model("pocket").fit.safe_context_tokens == model.fit.safe_context_tokens


def test_a_prewarmed_beginning_is_cached_for_the_question(client):
    first = client.prewarm(model="pocket", system=SYSTEM)
    assert first.prompt_tokens > 200
    assert (first.cached_tokens, first.overtaken) == (0, False)
    assert first.load_duration.ToNanoseconds() > 0
    reply = client.chat("What is the capital of France?", "pocket", system=SYSTEM, max_reply_tokens=2)
    assert reply.usage.cached_tokens > first.prompt_tokens * 0.9
    assert client.prewarm(model="pocket").prompt_tokens == 0


def test_a_model_stays_as_long_as_it_was_told(client):
    loaded_by(client, keep_alive_seconds=3600)
    (model,) = client.list_running_models()
    assert model.expiry_time.seconds - model.last_use_time.seconds in range(3595, 3606)
    client.chat("hi", "pocket", max_reply_tokens=1, keep_alive_seconds=-1)
    (model,) = client.list_running_models()
    assert not model.HasField("expiry_time")


def test_what_was_discarded_is_not_on_disk_and_the_rest_can_be_forgotten(client, ctl):
    client.chat(DOCUMENT, "pocket", max_reply_tokens=1, store=False)
    client.unload_model("pocket")
    assert client.snapshot().saved_prefixes_count == 0
    client.chat(DOCUMENT, "pocket", max_reply_tokens=1)
    client.unload_model("pocket")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (snapshot := client.snapshot()).saved_prefixes_count:  # it is committed behind
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert snapshot.saved_prefixes_count == 1
    forgotten = ctl("forget", "pocket", "--yes", "--json")
    assert json.loads(forgotten.stdout) == {
        "model": "pocket",
        "deleted_count": 1,
        "freed_bytes": snapshot.saved_prefixes_bytes,
    }
    assert client.snapshot().saved_prefixes_count == 0


def test_the_whole_decision_is_shown_on_one_screen(client, ctl):
    shown = ctl("plan", "pocket", "--prompt-tokens", "3000")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert len(lines) <= 30
    assert lines[0].startswith("pocket would be loaded with a context of ")
    for name in (
        "Context",
        "Fit",
        "Given up",
        "Evicts",
        "Pressure",
        "Why",
        "MEMORY",
        "KV cache",
        "available",
    ):
        assert any(line.startswith(name) for line in lines), name
    assert client.list_running_models() == []


def test_run_says_what_is_planned_before_it_loads(client, ctl):
    shown = ctl("run", "pocket", "--no-swap", "--temperature", "0", "What is the capital of France?")
    assert (shown.returncode, shown.stdout) == (0, "The capital of France is Paris.\n")
    assert shown.stderr.startswith("Plan for pocket:\n  context  ")
    assert "  fit      safe: it takes " in shown.stderr
    assert "pocket is in memory, loaded in " in shown.stderr
