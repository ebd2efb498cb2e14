"""An engine that is chosen: with ``--engine``, or before the name of the model."""

from __future__ import annotations

import json

import pytest
from autotune.client import Client
from autotune.v1 import plan_pb2

from autotunectl import loading, shapes
from autotunectl.chat.choice import choose
from autotunectl.chat.conversation import Conversation, export_json, markdown
from autotunectl.chat.numbers import conversation_numbers, numbers_text
from autotunectl.chat.repl import Repl
from autotunectl.chat.slash import ReplState, Slash
from autotunectl.commands import run
from autotunectl.session import Session
from tests.fakes.fake_messages import (
    engine,
    finished,
    fit,
    listed_model,
    plan_elsewhere,
    running_model,
    started,
)


@pytest.fixture
def two_engines(daemon):
    daemon.engines = [engine("llamacpp"), engine("ollama"), engine("gpu")]
    daemon.models = [
        listed_model("pocket"),
        listed_model("qwen3", "ollama", "llamacpp", aliases=["qwen3:8b"]),
        listed_model("ollama/odd", "ollama"),
        listed_model("x", "gpu", fit=None),
    ]
    return daemon


@pytest.mark.parametrize(
    "arguments",
    [
        ("chat", "-m", "qwen3", "hello"),
        ("run", "qwen3", "hello"),
        ("load", "qwen3"),
        ("plan", "qwen3"),
        ("unload", "qwen3"),
    ],
)
def test_each_verb_sends_the_engine(ctl, two_engines, arguments):
    assert ctl(*arguments, "--engine", "llamacpp").status == 0
    sent = [request.engine for request in two_engines.requests if hasattr(request, "engine")]
    assert sent == ["llamacpp"] * (3 if arguments[0] == "run" else 1)
    result = ctl(*arguments, "--engine", "olama")
    assert (result.status, result.out) == (5, "")
    assert result.err == '--engine: there is no engine "olama"; use one of: gpu, llamacpp, ollama.\n'


@pytest.mark.parametrize("verb", ["run", "load", "plan"])
def test_a_name_with_its_engine_goes_to_the_daemon_as_it_is(ctl, two_engines, verb):
    assert ctl(verb, "ollama/qwen3", *(["hello"] if verb == "run" else [])).status == 0
    sent = [request.model for request in two_engines.requests if hasattr(request, "model")]
    assert set(sent) == {"ollama/qwen3"}


def test_unload_says_the_name_as_it_was_typed(ctl, two_engines):
    two_engines.running = [running_model("qwen3", "ollama")]
    assert ctl("unload", "llamacpp/qwen3").out == "llamacpp/qwen3 was not in memory.\n"
    assert ctl("unload", "ollama/qwen3").out == (
        "Unloaded ollama/qwen3; 30.0 MiB of memory are free again.\n"
    )
    assert ctl("unload", "qwen3", "--engine", "llamacpp").out == "qwen3 was not in memory.\n"


def test_loading_a_model_elsewhere_takes_nothing_here(ctl, two_engines):
    two_engines.plan = plan_elsewhere()
    assert ctl("load", "x").out == (
        "x is ready on gpu; it takes no memory here.\n"
        "  context  chosen by gpu\n"
        "  why      It runs at http://gpu.example, which decides its shape: no memory is taken here.\n"
    )


def test_a_footprint_that_is_not_known_is_not_shown():
    loaded = loading.plan_lines(plan_elsewhere(), "gpu")
    assert [name for name, _ in loaded] == ["context", "why"]


@pytest.mark.parametrize(
    ("name", "asked", "chosen"),
    [
        ("", "", ("pocket", "")),
        ("qwen3", "", ("qwen3", "")),
        ("qwen3:8b", "", ("qwen3", "")),
        ("qwen3", "llamacpp", ("qwen3", "llamacpp")),
        ("llamacpp/qwen3", "", ("qwen3", "llamacpp")),
        ("ollama/qwen3:8b", "", ("qwen3", "ollama")),
        ("ollama/odd", "", ("ollama/odd", "")),
    ],
)
def test_a_conversation_keeps_the_engine_of_a_name(two_engines, name, asked, chosen):
    with Client(two_engines.address) as client:
        assert choose(client, name, asked) == chosen


@pytest.mark.parametrize(("default", "chosen"), [("llamacpp/qwen3", "llamacpp"), ("qwen3", "")])
def test_a_conversation_keeps_the_engine_of_the_default_model(two_engines, default, chosen):
    two_engines.default_model = default
    with Client(two_engines.address) as client:
        assert choose(client, "") == ("qwen3", chosen)


def test_a_dialogue_says_which_engine_and_asks_it(ctl, two_engines, monkeypatch):
    entries = iter(["Hi", "/model", "/model qwen3", "Hi"])
    monkeypatch.setattr("autotunectl.chat.prompt.Prompt.read", lambda _: _next(entries))
    result = ctl("chat", "-m", "llamacpp/qwen3", "--no-stats")
    assert result.status == 0
    assert result.err.startswith("Talking to qwen3 on llamacpp; /help lists the commands, Ctrl-D leaves.\n")
    assert "The model is qwen3 on llamacpp.\nThe model is qwen3.\n" in result.out
    asked = [request for request in two_engines.requests if type(request).__name__ == "GenerateRequest"]
    assert [(request.model, request.engine) for request in asked] == [("qwen3", "llamacpp"), ("qwen3", "")]
    assert ("qwen3", "llamacpp") in [(request.model, request.engine) for request in two_engines.prewarms]


def _next(entries):
    try:
        return next(entries)
    except StopIteration:
        raise EOFError from None


def test_the_command_model_takes_an_engine(two_engines, capsys):
    conversation = Conversation(model="pocket")
    with Client(two_engines.address) as client:
        repl = Repl(Session(), client, conversation, read=lambda: "/quit", shows_numbers=False)
        repl._run("/model ollama/qwen3:8b")
        assert (conversation.model, conversation.engine) == ("qwen3", "ollama")
        repl._run("/model pocket")
    assert (conversation.model, conversation.engine) == ("pocket", "")
    assert capsys.readouterr().out == "The model is qwen3 on ollama.\nThe model is pocket.\n"


def test_exports_name_the_engine():
    conversation = Conversation(model="qwen3", engine="ollama")
    assert markdown(conversation) == "# Conversation with qwen3 on ollama\n"
    assert export_json(conversation)["engine"] == "ollama"
    slash = Slash(conversation, ReplState(shows_numbers=True), lambda name: (name, ""), str)
    assert slash.run("/model") == "The model is qwen3 on ollama.\n"


def test_the_command_for_what_fits_keeps_the_engine():
    risk = fit(plan_pb2.FIT_CLASS_SWAP_RISK, safe_context_tokens=4096)
    assert '"autotunectl run qwen3 --context 4096 --engine ollama" fits' in run.risk_text(
        "qwen3", risk, "ollama"
    )
    assert '"autotunectl run ollama/qwen3 --context 4096" fits' in run.risk_text("ollama/qwen3", risk)


def reply(*events):
    from autotune.chat import ReplyBuilder

    builder = ReplyBuilder()
    for event in events:
        builder.add(event)
    return builder.reply()


def test_counts_that_come_with_the_end_are_the_numbers():
    late, unknown = (
        reply(started(counts=False), finished()),
        reply(started(counts=False), finished(cached_tokens=0)),
    )
    assert " · prompt 24 tokens (8 cached) · reply 9 tokens\n" in numbers_text(late)
    assert " · prompt 24 tokens · reply 9 tokens\n" in numbers_text(unknown)
    assert " · prompts 24 tokens · replies 9 tokens\n" in conversation_numbers([unknown])
    assert " · prompts 48 tokens (8 cached) · replies 18 tokens\n" in conversation_numbers([unknown, late])


def test_a_context_that_is_not_told_is_no_number_under_an_answer():
    first = started()
    first.started.plan.shape.assumed.append("context_tokens")
    assert "\ncontext chosen by llamacpp: 24 prompt tokens" in numbers_text(reply(first, finished()))


def test_a_chat_with_late_counts(ctl, two_engines):
    def script(request, context):
        yield started(request.model, counts=False)
        yield finished(cached_tokens=0)

    two_engines.script = script
    printed = json.loads(ctl("chat", "--json", "hello").out)
    assert printed["usage"] == {"prompt_tokens": 24, "cached_tokens": None, "reply_tokens": 9}
    assert " · prompt 24 tokens · reply 9 tokens" in ctl("chat", "--stats", "hello").err


def shape(*assumed: str) -> plan_pb2.LoadShape:
    return plan_pb2.LoadShape(
        context_tokens=8192,
        slots_count=2,
        key_cache_type=plan_pb2.KV_CACHE_TYPE_F16,
        value_cache_type=plan_pb2.KV_CACHE_TYPE_F16,
        batch_tokens=512,
        micro_batch_tokens=256,
        memory_mapped=True,
        gpu_layers_count=33,
        assumed=assumed,
    )


@pytest.mark.parametrize(
    ("assumed", "cache", "batches", "weights"),
    [
        (
            (),
            "F16 keys and F16 values, no flash attention",
            "512 tokens, 256 at once",
            "mapped from the file, 33 layers offered to the GPU",
        ),
        (
            ("value_cache_type", "micro_batch_tokens", "memory_mapped"),
            "no flash attention, types chosen by ollama",
            "512 tokens, computations chosen by ollama",
            "33 layers offered to the GPU, mapping chosen by ollama",
        ),
        (
            ("flash_attention", "batch_tokens", "gpu_layers_count"),
            "F16 keys and F16 values, flash attention chosen by ollama",
            "256 at once, size chosen by ollama",
            "mapped from the file, layers on the GPU chosen by ollama",
        ),
    ],
)
def test_each_part_of_a_shape_is_a_fact_or_chosen_by_the_engine(assumed, cache, batches, weights):
    assert shapes.shape_lines(shape(*assumed), "ollama") == [
        ("cache", cache),
        ("batches", batches),
        ("weights", weights),
    ]


@pytest.mark.parametrize(
    ("assumed", "text"),
    [
        ((), "8,192 tokens in each of 2 slots"),
        (("slots_count",), "8,192 tokens, slots chosen by ollama"),
        (("context_tokens",), "2 slots, size chosen by ollama"),
        (("context_tokens", "slots_count"), "chosen by ollama"),
    ],
)
def test_a_context_is_a_fact_or_chosen_by_the_engine(assumed, text):
    assert shapes.context_text(shape(*assumed), "ollama") == text
    assert shapes.chosen_by("") == "chosen by the engine"


def test_a_conversation_takes_the_id_that_the_model_has_on_its_engine(two_engines):
    model = listed_model("pocket", "ollama")
    model.places[0].id = "pocket:latest"
    two_engines.models = [model]
    with Client(two_engines.address) as client:
        assert choose(client, "pocket", "ollama") == ("pocket:latest", "ollama")
        assert choose(client, "ollama/pocket") == ("pocket:latest", "ollama")
        assert choose(client, "pocket") == ("pocket", "")
