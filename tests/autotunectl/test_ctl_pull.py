"""autotunectl pull where no person is there: plain lines, JSON, exit statuses; and its words."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import grpc
import pytest
from autotune.v1 import model_service_pb2
from google.protobuf import duration_pb2

from autotunectl.pull_texts import (
    numbers_text,
    offer_text,
    phase_line,
    pull_command,
    pulled_line,
)
from tests.fakes.download_messages import GIB, offer, progress, pulled, reason, recommendation
from tests.fakes.fake_messages import engine, rich_status
from tests.fakes.refusing import abort

DOWNLOADING = model_service_pb2.PULL_PHASE_DOWNLOADING
WAITING = model_service_pb2.PULL_PHASE_WAITING
PATIENCE_SECONDS = 30.0
HERE = "qwen3:8b is here; talk to it: autotunectl chat --model qwen3:8b\n"
LINES = """\
Asking what there is.
qwen3:8b for ollama
  size     4.0 GiB as Q4_K_M in 2 files, 3.0 GiB of it still to come
  to       /models (100.0 GiB free)
  fit      It will take 5.1 GiB, by its size alone, of the 16.0 GiB of RAM.
Downloading 4.0 GiB, 1.0 GiB of it here.
50 %: 2.0 GiB of 4.0 GiB · 40.0 MiB/s · 1 min 15 s left.
100 %: 4.0 GiB of 4.0 GiB.
Computing checksums.
"""


def test_a_pipe_gets_a_line_for_each_step_and_the_result_alone_on_standard_output(ctl, daemon):
    result = ctl("pull", "qwen3:8b", stdin=b"")
    assert (result.status, result.out, result.err) == (0, HERE, LINES)
    request = daemon.requests[-1]
    assert (request.model, request.engine, request.allow_too_large) == ("qwen3:8b", "", False)


def test_the_engine_and_the_consent_reach_the_daemon(ctl, daemon):
    daemon.too_large = {"huge"}
    assert ctl("pull", "huge", "--engine", "llamacpp", "-y").status == 0
    request = daemon.requests[-1]
    assert (request.model, request.engine, request.allow_too_large) == ("huge", "llamacpp", True)


def test_a_line_is_written_once_a_tenth_and_again_after_each_accident(ctl, daemon):
    def script(request, context):
        for percent in (10, 11, 19, 20, 21):
            yield progress(DOWNLOADING, percent * GIB, 100 * GIB)
        yield progress(WAITING, 21 * GIB, 100 * GIB, detail="the connection broke.")
        yield progress(WAITING, 21 * GIB, 100 * GIB, detail="the connection broke.")
        yield progress(DOWNLOADING, 21 * GIB, 100 * GIB)
        yield pulled(request.model)

    daemon.pull_script = script
    assert ctl("pull", "qwen3:8b").err == (
        "Downloading 100.0 GiB, 10.0 GiB of it here.\n"
        "20 %: 20.0 GiB of 100.0 GiB · 40.0 MiB/s · 1 min 15 s left.\n"
        "Waiting: the connection broke.\n"
        "Downloading 100.0 GiB, 21.0 GiB of it here.\n"
    )


def test_what_each_file_of_a_model_goes_through_is_no_line(ctl, daemon):
    finishing = model_service_pb2.PULL_PHASE_FINISHING

    def script(request, context):
        yield offer(request.model)
        yield progress(model_service_pb2.PULL_PHASE_RESOLVING)
        yield progress(finishing, 1 << 10, 4 * GIB)
        yield progress(DOWNLOADING, 1 << 20, 4 * GIB)
        yield progress(finishing, 2 * GIB, 4 * GIB)
        yield progress(DOWNLOADING, 2 * GIB, 4 * GIB)
        yield progress(finishing, 4 * GIB, 4 * GIB)
        yield progress(DOWNLOADING, 4 * GIB, 4 * GIB)
        yield progress(finishing, 4 * GIB, 4 * GIB)
        yield pulled(request.model)

    daemon.pull_script = script
    assert ctl("pull", "qwen3:8b").err.splitlines()[4:] == [
        "Downloading 4.0 GiB, 1.0 MiB of it here.",
        "50 %: 2.0 GiB of 4.0 GiB · 40.0 MiB/s · 1 min 15 s left.",
        "Finishing.",
    ]


def test_each_event_is_a_line_of_json(ctl, daemon):
    result = ctl("pull", "qwen3:8b", "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert (result.status, result.err) == (0, "")
    assert [event["event"] for event in events] == ["progress", "offer", *["progress"] * 4, "pulled"]
    assert (events[0]["phase"], events[0]["left_seconds"]) == ("resolving", None)
    assert (events[1]["missing_bytes"], events[1]["reasons"][0]["code"]) == (3 * GIB, "fits")
    assert (events[2]["done_bytes"], events[2]["bytes_per_second"], events[2]["left_seconds"]) == (
        GIB,
        40 << 20,
        75.0,
    )
    assert (events[-1]["model"]["id"], events[-1]["fetched_bytes"]) == ("qwen3:8b", 3 * GIB)


@pytest.mark.parametrize("stdin", [b"", b"y\n"])
def test_where_nobody_can_be_asked_what_does_not_fit_is_an_error_with_a_hint(ctl, daemon, stdin):
    daemon.too_large = {"huge"}
    result = ctl("pull", "huge", stdin=stdin)
    assert (result.status, result.out) == (5, "")
    assert result.err == (
        '"huge" will not fit: it would take about 40.0 GiB, by its size alone, and a model may take 16.0 GiB '
        'of RAM here; "qwen3:4b" fits. Add --yes to download it all the same.\n'
    )
    assert len([request for request in daemon.requests if hasattr(request, "allow_too_large")]) == 1


def test_with_json_what_does_not_fit_is_told_in_numbers(ctl, daemon):
    daemon.too_large = {"huge"}
    result = ctl("pull", "huge", "--json")
    error = json.loads(result.err)["error"]
    assert (result.status, error["reason"], error["metadata"]["suggestion"]) == (
        5,
        "MODEL_TOO_LARGE",
        "qwen3:4b",
    )


@pytest.mark.parametrize(
    ("reason", "code", "status"),
    [
        ("MODEL_NOT_FOUND", grpc.StatusCode.NOT_FOUND, 4),
        ("SOURCE_DENIED", grpc.StatusCode.PERMISSION_DENIED, 5),
        ("SOURCE_UNREACHABLE", grpc.StatusCode.UNAVAILABLE, 1),
        ("DOWNLOAD_CORRUPT", grpc.StatusCode.DATA_LOSS, 1),
        ("STORAGE_FULL", grpc.StatusCode.RESOURCE_EXHAUSTED, 1),
    ],
)
def test_a_download_that_fails_on_its_way_is_one_sentence(ctl, daemon, reason, code, status):
    def script(request, context):
        yield offer(request.model)
        yield progress(DOWNLOADING, GIB, 4 * GIB)
        abort(context, rich_status(code, reason, "What happened; what to do."))

    daemon.pull_script = script
    result = ctl("pull", "qwen3:8b")
    assert (result.status, result.out) == (status, "")
    assert result.err.endswith(" of it here.\nWhat happened; what to do.\n")


def test_a_download_that_ends_without_a_result_is_an_error(ctl, daemon):
    daemon.pull_script = lambda request, context: iter([offer(request.model)])
    result = ctl("pull", "qwen3:8b")
    assert result.status == 1
    assert result.err.endswith("The daemon ended the download without a result; its log has more.\n")


def test_what_was_here_already_says_so(ctl, daemon):
    daemon.pull_script = lambda request, context: iter([pulled(request.model, fetched_bytes=0)])
    assert ctl("pull", "qwen3:8b").out.startswith("qwen3:8b was here already; talk to it: ")


def test_a_field_that_is_wrong_is_called_as_the_command_line_calls_it(ctl, daemon):
    daemon.engines = [engine("llamacpp")]
    result = ctl("pull", "x", "--engine", "olama")
    assert (result.status, result.err) == (5, '--engine: there is no engine "olama"; use one of: llamacpp.\n')
    result = ctl("pull", "")
    assert (result.status, result.err.split(";")[0]) == (2, "NAME is empty")


def test_an_interrupt_in_a_pipe_is_130_and_names_the_command_that_goes_on(daemon):
    def script(request, context):
        yield offer(request.model)
        yield progress(DOWNLOADING, GIB, 4 * GIB)
        daemon.hold(context)

    daemon.pull_script = script
    process = subprocess.Popen(
        [sys.executable, "-m", "autotunectl", "pull", "hf:a/b c"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        assert any(line.startswith("Downloading") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (130, "")
    assert err == "Stopped; what came is kept. Go on with: autotunectl pull 'hf:a/b c'\n"
    assert daemon.cancelled.wait(PATIENCE_SECONDS)


def test_without_a_name_a_pipe_gets_what_suits_and_a_usage_error(ctl, daemon):
    daemon.recommendations = [recommendation(), recommendation("qwen3:4b", installed_as="qwen3:4b")]
    result = ctl("pull", stdin=b"1\n")
    assert (result.status, result.out) == (
        2,
        "#  MODEL        SIZE  ESTIMATED SPEED  NAME\n"
        "1  Qwen3 8B  5.0 GiB      23 tokens/s  qwen3:8b\n"
        "2  Qwen3 8B  5.0 GiB      23 tokens/s  qwen3:4b (installed)\n",
    )
    assert result.err.startswith("Nobody is there to choose; name one of them; ")
    result = ctl("pull", "--json")
    assert (result.status, json.loads(result.err)["error"]["reason"]) == (2, "USAGE")
    assert [pick["pull_name"] for pick in json.loads(result.out)["recommendations"]] == [
        "qwen3:8b",
        "qwen3:4b",
    ]
    assert not any(hasattr(request, "allow_too_large") for request in daemon.requests)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_without_a_name_where_nothing_fits_there_is_nothing_to_choose(ctl, daemon, options):
    daemon.recommendations = []
    daemon.recommend_reasons = [reason("smallest", "The smallest one needs 700.0 MiB.")]
    result = ctl("pull", *options)
    assert (result.status, result.err) == (5, "")
    assert "The smallest one needs 700.0 MiB." in result.out


def test_without_a_daemon_it_says_what_every_command_says(ctl, no_daemon, monkeypatch):
    monkeypatch.setattr("autotunectl.session.Session.connect", lambda session: session.client())
    refused = ctl("ls")
    assert (refused.status, refused.out) == (3, "")
    for arguments in (
        ["pull", "x"],
        ["pull"],
        ["rm", "x", "-y"],
        ["hardware"],
        ["recommend"],
        ["mlx", "resolve", "x"],
    ):
        assert ctl(*arguments) == refused


def test_a_download_in_a_pipe_imports_neither_rich_nor_a_line_editor(daemon):
    program = (
        "import sys; from autotunectl.__main__ import main; status = main();"
        "sys.stderr.write('\\n'.join(sys.modules)); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "pull", "x"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "autotunectl.pull_display" in result.stderr
    assert not {"rich", "prompt_toolkit", "autotunectl.recommendations"} & set(result.stderr.splitlines())


def test_the_numbers_are_those_that_are_known():
    def numbers(phase: int = DOWNLOADING, **fields: object) -> str:
        return numbers_text(model_service_pb2.PullProgress(phase=phase, **fields))

    assert numbers() == ""
    assert numbers(done_bytes=GIB) == "1.0 GiB"
    assert numbers(total_bytes=4 * GIB) == "0 B of 4.0 GiB"
    assert numbers(WAITING, total_bytes=4 * GIB, bytes_per_second=5) == "0 B of 4.0 GiB"
    for seconds, text in ((0, "1 s left"), (9, "9 s left"), (59, "59 s left"), (90_061, "1 d 1 h left")):
        assert numbers(left_duration=duration_pb2.Duration(seconds=seconds)) == text


def test_an_offer_says_only_what_is_known():
    def text(**fields: object) -> str:
        return offer_text(model_service_pb2.PullOffer(model="x", **fields))

    assert text() == "x\n  size     unknown"
    assert text(size_bytes=GIB) == "x\n  size     1.0 GiB, all of it here already"
    assert text(size_bytes=GIB, missing_bytes=GIB, source="hf:a/x") == "x from hf:a/x\n  size     1.0 GiB"
    assert text(folder="/m", disk_free_bytes=0).endswith("\n  to       /m (0 B free)")
    assert text(folder="/m").endswith("\n  to       /m")


@pytest.mark.parametrize("source", ["lab/x", "lab/x:latest", ""])
def test_an_offer_names_no_source_that_says_the_same_as_the_model(source):
    offered = model_service_pb2.PullOffer(model="lab/x:latest", source=source, size_bytes=GIB)
    assert offer_text(offered).splitlines()[0] == "lab/x:latest"


def test_a_folder_stays_in_one_line_so_that_it_can_be_copied():
    folder = "/Volumes/Library/Application Support/" + "autotune/registry/" * 4
    offered = model_service_pb2.PullOffer(model="x", folder=folder)
    assert f"  to       {folder}" in offer_text(offered).splitlines()


def test_a_command_is_one_that_can_be_copied():
    assert pull_command("qwen3:8b") == "autotunectl pull qwen3:8b"
    assert pull_command("x; rm -rf ~", "mlx", yes=True) == "autotunectl pull 'x; rm -rf ~' --engine mlx --yes"


def test_hostile_texts_cannot_steer_the_terminal():
    hostile = "a\x1b[2J\x07"
    event = progress(WAITING, 1, 2, detail=hostile).progress
    offered = offer(hostile, hostile, source=hostile, folder=hostile, quantization=hostile).offer
    texts = (
        phase_line(event),
        numbers_text(event),
        offer_text(offered),
        pulled_line(pulled(hostile).pulled),
        pull_command(hostile, hostile),
    )
    assert not {"\x1b", "\x07"} & set("".join(texts))
