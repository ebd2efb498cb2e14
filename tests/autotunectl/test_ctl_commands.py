"""What each command prints, for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys

import grpc
import pytest
from autotune.v1 import daemon_service_pb2, model_service_pb2, plan_pb2, system_service_pb2
from autotune.version import __version__

from autotunectl import loading
from autotunectl.commands import status, stop, unload, version
from tests.fakes.fake_messages import START_TIME, footprint, milliseconds, plan, rich_status, running_model


def test_load_shows_the_plan(ctl, daemon):
    result = ctl("load", "pocket", "--context", "2000")
    assert (result.status, result.err) == (0, "")
    assert result.out == (
        "pocket is in memory, loaded in 420 ms.\n"
        "  context  2,048 tokens in each of 1 slot\n"
        "  memory   34.2 MiB: 2.2 MiB weights, 2.0 MiB KV cache, 10.0 MiB computation, 20.0 MiB process\n"
        "  fit      safe: it takes 34.0 MiB, 6.0 GiB can be had; up to 8,192 tokens of context are safe with this KV cache\n"
        "  why      24 prompt tokens + 1,024 for the reply = 1,048 tokens.\n"
        "  why      1,048 snaps up to the bucket 2,048.\n"
    )
    assert daemon.requests[-1] == model_service_pb2.LoadModelRequest(model="pocket", context_tokens=2000)


def test_load_as_json_is_a_line_for_each_event(ctl, daemon):
    lines = [json.loads(line) for line in ctl("load", "pocket", "--json").out.splitlines()]
    assert [line["event"] for line in lines] == ["progress", "progress", "loaded"]
    assert lines[0] == {"event": "progress", "phase": "starting", "elapsed_seconds": 0.12}
    assert lines[2]["running_model"]["id"] == "pocket"
    assert lines[2]["plan"]["action"] == "load"


def test_a_load_without_an_end_is_an_error(ctl, daemon, monkeypatch):
    monkeypatch.setattr("autotune.client.Client.load_model", lambda *_: iter(()))
    result = ctl("load", "pocket")
    assert result.status == 1
    assert result.err == "The daemon ended the load without a result; its log has more.\n"


def test_the_log_of_a_daemon_is_the_file_behind_its_standard_error(tmp_path):
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stderr=file)
    info = daemon_service_pb2.GetInfoResponse(process_id=process.pid)
    assert status._log_file(info) == (str(log) if sys.platform == "linux" else "")
    process.communicate()
    assert status._log_file(info) == ""
    info.log_file = "/chosen.log"
    assert status._log_file(info) == "/chosen.log"


def test_loading_what_is_loaded_says_so():
    loaded = model_service_pb2.LoadedModel(running_model=running_model())
    loaded.plan.action = plan_pb2.PLAN_ACTION_REUSE
    loaded.plan.footprint.CopyFrom(footprint())
    assert loading.loaded_text(loaded).startswith("pocket was in memory already, loaded in 420 ms.\n")


def test_loaded_text_has_the_plural():
    loaded = model_service_pb2.LoadedModel(running_model=running_model(), plan=plan())
    loaded.plan.shape.slots_count = 4
    assert "2,048 tokens in each of 4 slots" in loading.loaded_text(loaded)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (model_service_pb2.UnloadModelResponse(outcome=2), "m was not in memory.\n"),
        (model_service_pb2.UnloadModelResponse(outcome=1), "Unloaded m.\n"),
        (
            model_service_pb2.UnloadModelResponse(outcome=1, freed_memory_bytes=30 << 20),
            "Unloaded m; 30.0 MiB of memory are free again.\n",
        ),
    ],
)
def test_unload_says_what_happened(response, text):
    assert unload.render("m", response) == text


def test_unload(ctl, daemon):
    daemon.running = [running_model()]
    assert ctl("unload", "pocket").out == "Unloaded pocket; 30.0 MiB of memory are free again.\n"
    assert json.loads(ctl("unload", "pocket", "--json").out) == {
        "model": "pocket",
        "outcome": "unloaded",
        "freed_memory_bytes": 31457280,
    }


def test_unload_without_a_daemon_finds_nothing(ctl, no_daemon):
    assert ctl("unload", "pocket").out == "pocket was not in memory.\n"
    assert json.loads(ctl("unload", "pocket", "--json").out)["outcome"] == "not_loaded"


def test_status_shows_daemon_and_machine():
    info = daemon_service_pb2.GetInfoResponse(
        version="0.1.0",
        process_id=4242,
        start_time=START_TIME,
        data_directory="/data",
        runtime_directory="/runtime",
        engines=[daemon_service_pb2.EngineInfo(name="llamacpp", version="b1")],
    )
    snapshot = system_service_pb2.Snapshot(
        cpu_used_ratio=0.25,
        cpu_cores_count=2,
        memory_total_bytes=8 << 30,
        memory_available_bytes=6 << 30,
        swap_total_bytes=1 << 30,
        daemon_resident_memory_bytes=50 << 20,
        running_models=[running_model()],
        active_requests_count=1,
        queued_requests_count=3,
        pressure_tier=plan_pb2.PRESSURE_TIER_NORMAL,
        memory_stalled_ratio=0.015,
        memory_limit_bytes=8 << 30,
        saved_prefixes_count=3,
        saved_prefixes_bytes=12 << 20,
    )
    text = status.render(
        info, snapshot, "unix:/runtime/autotuned.sock", "/state/autotuned.log", START_TIME.seconds + 61.0
    )
    assert text == (
        "Daemon    autotuned 0.1.0, process 4242\n"
        "Up for    1 min 1 s\n"
        "Serves    unix:/runtime/autotuned.sock\n"
        "Engines   llamacpp b1\n"
        "Models    pocket\n"
        "Requests  1 running, 3 waiting\n"
        "Memory    2.0 GiB of 8.0 GiB (the container's limit) used, the daemon 50.0 MiB\n"
        "Pressure  normal; programs waited for memory 1.5% of the last 10 s\n"
        "Swap      0 B of 1.0 GiB used\n"
        "Prefixes  3 saved, 12.0 MiB on disk\n"
        "CPU       25% of 2 cores\n"
        "Data      /data\n"
        "Runtime   /runtime\n"
        "Log       /state/autotuned.log\n"
    )


def test_status_of_a_running_daemon(ctl, daemon):
    assert ctl("status").out.startswith(f"Daemon    autotuned {__version__}, process 4242\n")
    assert "Swap      none\n" in ctl("status").out
    assert "Memory    2.0 GiB of 8.0 GiB used, the daemon 50.0 MiB\nPressure  normal\n" in ctl("status").out
    daemon.saved_prefixes_count = 0
    assert "Prefixes  none saved\n" in ctl("status").out
    printed = json.loads(ctl("status", "--json").out)
    assert printed["daemon_running"] is True
    assert printed["address"] == daemon.address
    assert printed["daemon"]["version"] == __version__
    assert printed["snapshot"]["memory_total_bytes"] == 8 << 30


def test_status_tells_programs_the_same_log_as_people(ctl, daemon, monkeypatch):
    monkeypatch.setattr(status, "_log_file", lambda _: "/state/autotuned.log")
    assert json.loads(ctl("status", "--json").out)["daemon"]["log_file"] == "/state/autotuned.log"
    monkeypatch.setattr(status, "_log_file", lambda _: "")
    assert json.loads(ctl("status", "--json").out)["daemon"]["log_file"] == ""
    assert ctl("status").out.endswith("Log       standard error of the daemon\n")


def test_status_without_a_daemon_says_so_with_its_status(ctl, no_daemon):
    result = ctl("status")
    assert (result.status, result.err) == (3, "")
    assert result.out == f'No daemon is running at {no_daemon.address}; "autotunectl chat" starts one.\n'
    result = ctl("status", "--json")
    assert result.status == 3
    assert json.loads(result.out)["daemon_running"] is False


def test_version_shows_both(ctl, daemon):
    daemon.version = __version__
    assert ctl("version").out == f"autotunectl  {__version__}\nautotuned    {__version__}\n"
    assert json.loads(ctl("version", "--json").out) == {
        "client_version": __version__,
        "daemon_version": __version__,
    }


def test_version_without_a_daemon(ctl, no_daemon):
    result = ctl("version")
    assert (result.status, result.err) == (0, "")
    assert result.out == version.render(__version__, None)
    assert result.out.endswith("autotuned    not running\n")
    assert json.loads(ctl("version", "--json").out)["daemon_version"] is None


def test_a_daemon_of_another_version_is_told_once_and_works(ctl, daemon):
    daemon.version = "9.9.9"
    warning = (
        f"autotuned 9.9.9 is running but autotunectl is {__version__}; "
        'run "autotunectl stop" and the next command starts the new one.\n'
    )
    for verb in ("version", "ls", "status"):
        result = ctl(verb)
        assert (result.status, result.err) == (0, warning)
    assert ctl("ls", "--json").err == ""


def test_stop_waits_until_the_daemon_has_gone(ctl, daemon):
    assert ctl("stop").out == "Stopped the daemon.\n"
    assert ctl("stop").out == "No daemon is running.\n"
    assert json.loads(ctl("stop", "--json").out) == {"stopped": False}


def test_stop_gives_up_on_a_daemon_that_goes_on(ctl, daemon, monkeypatch):
    monkeypatch.setattr(stop, "_GRACE_SECONDS", 0.05)
    response = daemon_service_pb2.ShutdownResponse(drain_duration=milliseconds(50))
    monkeypatch.setattr("autotune.client.Client.shutdown", lambda _: response)
    result = ctl("stop")
    assert result.status == 1
    assert result.err == (
        'The daemon still serves 100 ms after it was told to stop; look at it with "autotunectl status".\n'
    )


def test_stop_of_a_stopping_daemon_waits_too(ctl, daemon, monkeypatch):
    monkeypatch.setattr(stop, "_GRACE_SECONDS", 5.0)
    daemon.refusal = rich_status(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "It stops.")
    listening = iter([True, True, False])
    monkeypatch.setattr(stop, "_listens", lambda _: next(listening))
    assert ctl("stop", "--json").out == '{"stopped": true}\n'


def test_serve_gives_the_shim_its_place(ctl, daemon, monkeypatch):
    served = []

    def serve(*, announce, **place):
        served.append(place)
        announce("http://[::1]:9999")

    monkeypatch.setattr("autotune_shim.server.serve", serve)
    result = ctl("serve", "--port", "9999", "--host", "::1", "--json")
    assert (result.status, json.loads(result.out)["url"]) == (0, "http://[::1]:9999")
    assert served == [{"host": "::1", "port": 9999, "address": daemon.address}]


def test_serve_on_a_port_that_is_taken_is_one_sentence(ctl, daemon, monkeypatch):
    def serve(**_):
        raise SystemExit("Port 8765 is taken; choose another with --port.")

    monkeypatch.setattr("autotune_shim.server.serve", serve)
    result = ctl("serve")
    assert (result.status, result.err) == (1, "Port 8765 is taken; choose another with --port.\n")
    assert ctl("serve", "--json").out == ""
