"""One question: where it comes from, what is printed where."""

from __future__ import annotations

import io
import json
import signal
import sys

import grpc
import pytest
from autotune.v1 import chat_pb2, inference_service_pb2, model_pb2, plan_pb2

from autotunectl.chat import question
from autotunectl.chat.numbers import conversation_numbers, numbers_text
from autotunectl.chat.screen import Screen, StatusLine, queued_text
from autotunectl.chat.turn import ctrl_c_calls
from autotunectl.output import Style
from tests.fakes.fake_daemon import fail_with, say
from tests.fakes.fake_messages import delta, finished, fit, queued, rich_status, started

ANSWER = "The capital of France is Paris.\n"
NUMBERS = (
    "TTFT 21.0 ms · 412.3 tokens/s · prompt 24 tokens (8 cached) · reply 9 tokens\n"
    "context 2,048 tokens: 24 prompt tokens + 1,024 for the reply = 1,048 tokens."
    " 1,048 snaps up to the bucket 2,048.\n"
)


def asked(daemon) -> list[tuple[int, str]]:
    return [(message.role, message.parts[0].text) for message in daemon.requests[-1].chat.messages]


def test_a_question_is_answered_on_standard_output(ctl, daemon):
    result = ctl("chat", "What is the capital of France?")
    assert (result.status, result.out, result.err) == (0, ANSWER, "")
    assert asked(daemon) == [(chat_pb2.ROLE_USER, "What is the capital of France?")]


def test_words_make_a_question_without_quotes(ctl, daemon):
    assert ctl("chat", "What", "is", "it?").status == 0
    assert asked(daemon) == [(chat_pb2.ROLE_USER, "What is it?")]


def test_options_reach_the_request(ctl, daemon):
    options = "-m pocket -p quality -s Brief. --temperature 0 --max-tokens 7 --seed 3 --context 4096"
    assert ctl("chat", *options.split(), "hello").status == 0
    request = daemon.requests[-1]
    assert (request.model, request.profile) == ("pocket", inference_service_pb2.PROFILE_QUALITY)
    assert asked(daemon) == [(chat_pb2.ROLE_SYSTEM, "Brief."), (chat_pb2.ROLE_USER, "hello")]
    assert (request.sampling.temperature, request.sampling.seed) == (0.0, 3)
    assert (request.max_reply_tokens, request.context_tokens) == (7, 4096)
    assert not request.HasField("keep_alive_duration")
    assert (request.swap_policy, request.store_policy) == (0, 0)


def test_the_policies_of_memory_and_disk_reach_the_request(ctl, daemon):
    assert ctl("chat", "--no-swap", "--keep-alive", "10m", "--no-store", "hello").status == 0
    request = daemon.requests[-1]
    assert request.swap_policy == inference_service_pb2.SWAP_POLICY_NEVER
    assert request.keep_alive_duration.ToSeconds() == 600
    assert request.store_policy == inference_service_pb2.STORE_POLICY_DISCARD
    ctl("chat", "--swap", "--keep-alive", "-1", "hello")
    request = daemon.requests[-1]
    assert request.swap_policy == inference_service_pb2.SWAP_POLICY_ALLOW
    assert request.keep_alive_duration.ToSeconds() == -1


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("sampling.temperature", "--temperature: 9 is out of range; use 0 to 5."),
        ("context_tokens", "--context: 9 is out of range; use 0 to 5."),
        ("stop_sequences", "stop_sequences: 9 is out of range; use 0 to 5."),
    ],
)
def test_a_refusal_names_the_flag_that_was_set(ctl, daemon, field, words):
    status = rich_status(
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        f"{field}: 9 is out of range; use 0 to 5.",
        field=field,
    )
    daemon.script = fail_with(status)
    result = ctl("chat", "hello")
    assert (result.status, result.err) == (5, f"{words}\n")
    assert json.loads(ctl("chat", "--json", "hello").err)["error"] == {
        "reason": "FIELD_INVALID",
        "message": words,
        "metadata": {"field": field},
    }


def test_the_environment_names_model_and_profile(ctl, daemon, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_MODEL", "other")
    monkeypatch.setenv("AUTOTUNE_PROFILE", "fast")
    ctl("chat", "hello")
    assert daemon.requests[-1].model == "other"
    assert daemon.requests[-1].profile == inference_service_pb2.PROFILE_FAST


def test_piped_text_is_the_question(ctl, daemon):
    assert ctl("chat", stdin=b"What is it?\n").out == ANSWER
    assert asked(daemon) == [(chat_pb2.ROLE_USER, "What is it?")]


def test_piped_text_follows_the_question(ctl, daemon):
    ctl("chat", "Explain this.", stdin="diff --git\n+é\n".encode())
    assert asked(daemon) == [(chat_pb2.ROLE_USER, "Explain this.\n\ndiff --git\n+é")]


def test_empty_piped_text_leaves_the_question(ctl, daemon):
    ctl("chat", "Explain this.", stdin=b"\n")
    assert asked(daemon) == [(chat_pb2.ROLE_USER, "Explain this.")]


def test_no_question_anywhere_is_wrong_usage(ctl, daemon):
    result = ctl("chat", stdin=b" \n")
    assert (result.status, result.out) == (2, "")
    assert result.err == (
        'There is no question: standard input is empty; "autotunectl chat --help" explains it.\n'
    )


def test_piped_bytes_that_are_no_text_are_refused(ctl, daemon):
    result = ctl("chat", stdin=b"abc\xff")
    assert result.status == 5
    assert result.err == "Standard input is not valid UTF-8 at byte 3; convert it, perhaps with iconv.\n"
    assert daemon.requests == []


def test_endless_piped_text_is_refused_without_reading_it_all(ctl, daemon, monkeypatch):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = b"y" * len(buffer)
            return len(buffer)

    monkeypatch.setattr(question, "_MAX_BYTES", 1000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    with pytest.raises(question.MessageTooLarge):
        question.question_of(())


def test_an_argument_that_is_no_unicode_is_refused(ctl, daemon):
    result = ctl("chat", "bad \udcff byte")
    assert result.status == 5
    assert result.err.startswith("text: the text holds a lone surrogate at position 4")


def test_stats_are_the_last_lines_on_standard_error(ctl, daemon):
    result = ctl("chat", "--stats", "hello")
    assert (result.out, result.err) == (ANSWER, NUMBERS)


def test_json_is_one_document(ctl, daemon):
    result = ctl("chat", "--json", "hello")
    assert (result.status, result.err) == (0, "")
    printed = json.loads(result.out)
    assert printed["text"] == "The capital of France is Paris."
    assert printed["finish_reason"] == "stop"
    assert printed["usage"] == {"prompt_tokens": 24, "cached_tokens": 8, "reply_tokens": 9}
    assert printed["timings"]["time_to_first_token_seconds"] == 0.021
    assert printed["timings"]["queue_seconds"] is None
    assert printed["plan"]["shape"]["context_tokens"] == 2048
    assert (printed["model"], printed["engine"], printed["request_id"]) == ("pocket", "llamacpp", "r1")
    assert printed["tool_calls"] == []


def test_an_answer_that_ends_its_line_gets_no_second_line(ctl, daemon):
    daemon.script = say("One.\n")
    assert ctl("chat", "hello").out == "One.\n"


def test_an_empty_answer_prints_nothing(ctl, daemon):
    daemon.script = say()
    assert ctl("chat", "hello").out == ""


def test_an_answer_that_breaks_off_keeps_what_came(ctl, daemon):
    status = rich_status(grpc.StatusCode.UNAVAILABLE, "ENGINE_UNREACHABLE", "The engine died; ask again.")
    daemon.script = fail_with(status, "Once upon")
    result = ctl("chat", "hello")
    assert (result.status, result.out, result.err) == (7, "Once upon\n", "The engine died; ask again.\n")


def test_run_loads_shows_the_plan_and_asks(ctl, daemon):
    result = ctl("run", "pocket", "hello", "--no-stats")
    assert (result.status, result.out) == (0, ANSWER)
    assert result.err == (
        "Plan for pocket:\n"
        "  context  2,048 tokens in each of 1 slot\n"
        "  memory   34.2 MiB: 2.2 MiB weights, 2.0 MiB KV cache, 10.0 MiB computation, 20.0 MiB process\n"
        "  fit      safe: it takes 34.0 MiB, 6.0 GiB can be had; up to 8,192 tokens of context are safe with this KV cache\n"
        "  why      24 prompt tokens + 1,024 for the reply = 1,048 tokens.\n"
        "  why      1,048 snaps up to the bucket 2,048.\n"
        "pocket is in memory, loaded in 420 ms.\n"
    )
    kinds = [type(request).__name__ for request in daemon.requests]
    assert kinds == ["GetInfoRequest", "PlanModelRequest", "LoadModelRequest", "GenerateRequest"]
    assert daemon.requests[-1].model == "pocket"


def test_run_plans_loads_and_asks_with_the_same_options(ctl, daemon):
    options = "-p fast --context 4096 --no-swap --keep-alive 1h --no-stats"
    assert ctl("run", "pocket", "hello", *options.split()).status == 0
    planned, loaded, asked_for = daemon.requests[1:]
    for request in (planned, loaded, asked_for):
        assert request.profile == inference_service_pb2.PROFILE_FAST
        assert request.context_tokens == 4096
        assert request.swap_policy == inference_service_pb2.SWAP_POLICY_NEVER
    assert loaded.keep_alive_duration.seconds == asked_for.keep_alive_duration.seconds == 3600


@pytest.mark.parametrize(
    ("fit_class", "safe_context_tokens", "sentence"),
    [
        (
            plan_pb2.FIT_CLASS_SWAP_RISK,
            1024,
            "pocket may push memory to disk in this shape; "
            '"autotunectl run pocket --context 1024" fits, and --no-swap refuses what does not.\n',
        ),
        (
            plan_pb2.FIT_CLASS_OOM,
            0,
            "pocket does not fit at any context; choose a smaller model or a smaller quantization of it.\n",
        ),
    ],
)
def test_run_says_clearly_what_does_not_fit(ctl, daemon, fit_class, safe_context_tokens, sentence):
    daemon.plan.fit.CopyFrom(fit(fit_class, safe_context_tokens))
    assert sentence in ctl("run", "pocket", "hello").err


def test_run_with_json_prints_the_answer_alone(ctl, daemon):
    result = ctl("run", "pocket", "hello", "--json")
    assert result.err == ""
    assert json.loads(result.out)["text"] == "The capital of France is Paris."


def test_run_of_an_unknown_model_asks_nothing(ctl, daemon):
    result = ctl("run", "poket", "hello")
    assert result.status == 4
    assert result.err == (
        'There is no model "poket"; did you mean "pocket"? "autotunectl ls" lists the models.\n'
    )


def reply(*events):
    from autotune.chat import ReplyBuilder

    builder = ReplyBuilder()
    for event in events:
        builder.add(event)
    return builder.reply()


def test_the_numbers_tell_waiting_loading_and_a_cut_answer():
    end = finished(inference_service_pb2.FINISH_REASON_LENGTH)
    end.finished.timings.queue_duration.FromMilliseconds(1200)
    end.finished.timings.load_duration.FromMilliseconds(420)
    end.finished.timings.decode_tokens_per_second = 0.0
    assert numbers_text(reply(started(), end)).split("\n")[0] == (
        "TTFT 21.0 ms · prompt 24 tokens (8 cached) · reply 9 tokens"
        " · waited 1.2 s · loaded in 420 ms · cut at its length limit"
    )


def test_the_numbers_of_a_conversation():
    one = reply(started(), finished())
    assert conversation_numbers([]) == "No answer yet.\n"
    assert conversation_numbers([one]).startswith("1 answer: mean TTFT 21.0 ms · 412.3 tokens/s")
    assert conversation_numbers([one, one]) == (
        "2 answers: mean TTFT 21.0 ms · 412.3 tokens/s · prompts 48 tokens (16 cached) · replies 18 tokens\n"
        f"last: {NUMBERS}"
    )


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (queued(2), "waiting, 2 before you"),
        (queued(0), "loading pocket…"),
        (queued(0, model_pb2.LOAD_PHASE_READING_WEIGHTS), "loading pocket… reading weights, 120 ms"),
        (queued(0, model_pb2.LOAD_PHASE_WAITING), "loading pocket… waits after repeated crashes, 120 ms"),
    ],
)
def test_the_status_line_says_what_it_waits_for(event, text):
    assert queued_text(event.queued, "pocket") == text


def test_the_status_line_tells_no_time_that_has_hardly_begun():
    event = queued(0, model_pb2.LOAD_PHASE_STARTING).queued
    event.load_progress.elapsed_duration.nanos = 1_300_000
    assert queued_text(event, "pocket") == "loading pocket… starting"


def test_the_status_line_without_a_model_name():
    assert queued_text(queued(0).queued, "") == "loading the model…"


def test_a_terminal_shows_waiting_thinking_and_the_answer(capsys):
    screen = Screen(
        model="pocket", style=Style(colours=True), status=StatusLine(enabled=True), is_terminal=True
    )
    thought = inference_service_pb2.GenerateResponse(delta=inference_service_pb2.Delta(reasoning="Hm."))
    screen.begin()
    for event in (queued(1), started(), thought, delta("Pa\x1b[2Jris."), finished()):
        screen.show(event)
    screen.end()
    shown = capsys.readouterr()
    assert shown.out == "\x1b[2mHm.\x1b[0m\n\nPa[2Jris.\n"
    waiting = "\r\x1b[Kwaiting for the first token…"
    assert shown.err == f"{waiting}\r\x1b[Kwaiting, 1 before you{waiting}\r\x1b[K"


def test_a_file_gets_the_answer_as_it_came_without_thoughts(capsys):
    screen = Screen(
        model="pocket", style=Style(colours=False), status=StatusLine(enabled=False), is_terminal=False
    )
    thought = inference_service_pb2.GenerateResponse(delta=inference_service_pb2.Delta(reasoning="Hm."))
    for event in (queued(1), thought, delta("a\x1bb"), finished()):
        screen.show(event)
    screen.end()
    assert capsys.readouterr() == ("a\x1bb\n", "")


def test_ctrl_c_stops_a_call_without_an_exception_from_nowhere():
    stops = []
    before = signal.getsignal(signal.SIGINT)
    with ctrl_c_calls(lambda: stops.append("stop")):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert stops == ["stop", "stop"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_that_did_not_help_raises_the_next_time(monkeypatch):
    monkeypatch.setattr("autotunectl.chat.turn.PATIENCE_SECONDS", -1.0)
    with ctrl_c_calls(lambda: None):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
